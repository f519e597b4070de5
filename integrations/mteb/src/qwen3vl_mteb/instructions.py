"""The instruction of a task: the official evaluation's where it has the same data, else that of mteb."""

from __future__ import annotations

from collections.abc import Mapping

from mteb.abstasks.abstask import get_abstask_prompt
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.types import PromptType

from qwen3vl.evaluation.mmeb_v2.catalogue import DATASETS

_VIDORE = {
    "ArxivQA": "arxivqa",
    "DocVQA": "docvqa",
    "InfoVQA": "infovqa",
    "ShiftProject": "shiftproject",
    "SyntheticDocQAAI": "syntheticDocQA_artificial_intelligence",
    "SyntheticDocQAEnergy": "syntheticDocQA_energy",
    "SyntheticDocQAGovernmentReports": "syntheticDocQA_government_reports",
    "SyntheticDocQAHealthcareIndustry": "syntheticDocQA_healthcare_industry",
    "Tabfquad": "tabfquad",
    "Tatdqa": "tatdqa",
}
_VIDORE_2 = {
    "BioMedicalLectures": "biomedical_lectures_v2_multilingual",
    "ESGReportsHL": "esg_reports_human_labeled_v2",
    "ESGReports": "esg_reports_v2_multilingual",
    "EconomicsReports": "economics_reports_v2_multilingual",
}
_VISRAG = {
    **{name: name for name in ("ArxivQA", "ChartQA", "InfoVQA", "PlotQA", "SlideVQA")},
    "MPDocVQA": "MP-DocVQA",
}
_SAME_DATA = {
    **{f"Vidore{task}Retrieval": f"ViDoRe_{name}" for task, name in _VIDORE.items()},
    **{f"Vidore2{task}Retrieval": f"ViDoRe_{name}" for task, name in _VIDORE_2.items()},
    **{f"VisRAGRet{task}": f"VisRAG_{name}" for task, name in _VISRAG.items()},
    "MSVDT2VRetrieval": "MSVD",
    "VATEXT2VRetrieval.v2": "VATEX",
    "BreakfastClassification": "Breakfast",
    "HMDB51Classification": "HMDB51",
    "HMDB51ZeroShot": "HMDB51",
    "Kinetics700V": "K700",
}
"""Data sets of MMEB-v2 by the name of mteb's task with the same data."""

OFFICIAL_INSTRUCTIONS: Mapping[str, str] = {
    task: DATASETS[name].instructions[0].strip() for task, name in _SAME_DATA.items()
}
"""Instructions of queries by the name of mteb's task, for the data that the official MMEB-v2 scripts have as well."""


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
