"""The instruction of a task: the official evaluation's where it has the same data, else that of mteb."""

from __future__ import annotations

from collections.abc import Mapping

from mteb.abstasks.abstask import get_abstask_prompt
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.types import PromptType

_DOCUMENT_PAGES = "Find a document image that matches the given query."
_VIDORE = (
    *("ArxivQA", "DocVQA", "InfoVQA", "ShiftProject", "SyntheticDocQAAI", "SyntheticDocQAEnergy"),
    *("SyntheticDocQAGovernmentReports", "SyntheticDocQAHealthcareIndustry", "Tabfquad", "Tatdqa"),
)
_VIDORE_2 = ("BioMedicalLectures", "ESGReportsHL", "ESGReports", "EconomicsReports")
_VISRAG = ("ArxivQA", "ChartQA", "InfoVQA", "MPDocVQA", "PlotQA", "SlideVQA")

OFFICIAL_INSTRUCTIONS: Mapping[str, str] = {
    **{f"Vidore{name}Retrieval": _DOCUMENT_PAGES for name in _VIDORE},
    **{f"Vidore2{name}Retrieval": _DOCUMENT_PAGES for name in _VIDORE_2},
    **{f"VisRAGRet{name}": _DOCUMENT_PAGES for name in _VISRAG},
    "MSVDT2VRetrieval": "Find the video snippet that corresponds to the given summary.",
    "VATEXT2VRetrieval.v2": "Select a video that fits the description provided.",
    "BreakfastClassification": "Recognize the breakfast type that the person is cooking in the video.",
    "HMDB51Classification": "What actions or objects interactions are the person in the video doing?",
    "HMDB51ZeroShot": "What actions or objects interactions are the person in the video doing?",
    "Kinetics700V": "Recognize the category of the video content.",
}
"""Instructions of queries by the name of mteb's task, for the data that the official MMEB-v2 scripts have as well
(src/evaluation/mmeb_v2/data/datasets of QwenLM/Qwen3-VL-Embedding at commit 8ce3aab)."""


def find_instruction(
    metadata: TaskMetadata, prompt_type: PromptType | None, instructions: Mapping[str, str]
) -> str | None:
    """Return the instruction for inputs of a task.

    The first of these that there is: the caller's for the task, the official one, the caller's for the type of task,
    the one that mteb has for the task, for queries only if it has one for them. Documents have the model's instruction,
    as in the official evaluation, unless the caller has one for them.

    Args:
        metadata: The task.
        prompt_type: Whether the inputs are queries or documents; None for tasks that have neither.
        instructions: The caller's: by the name of a task, or its type. For documents by these with `-document` at the
            end, or by `"document"`.

    Returns:
        The instruction; None for the model's own.
    """
    keys = (metadata.name, str(metadata.type))
    if prompt_type == PromptType.document:
        document_keys = (*(f"{key}-document" for key in keys), "document")
        return next((instructions[key] for key in document_keys if key in instructions), None)
    for known, key in ((instructions, keys[0]), (OFFICIAL_INSTRUCTIONS, keys[0]), (instructions, keys[1])):
        if key in known:
            return known[key]
    prompt = metadata.prompt
    return (prompt.get(PromptType.query.value) if isinstance(prompt, dict) else prompt) or None


def find_instruction_or_type(
    metadata: TaskMetadata, prompt_type: PromptType | None, instructions: Mapping[str, str]
) -> str | None:
    """Return the instruction of `find_instruction`, or that of mteb for this type of task.

    Args:
        metadata: As for `find_instruction`.
        prompt_type: As for `find_instruction`.
        instructions: As for `find_instruction`.

    Returns:
        The instruction; None for the model's own, which documents have.
    """
    instruction = find_instruction(metadata, prompt_type, instructions)
    if instruction is None and prompt_type != PromptType.document:
        return get_abstask_prompt(metadata.name) or None
    return instruction
