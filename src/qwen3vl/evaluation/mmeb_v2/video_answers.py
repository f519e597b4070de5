"""Loader of the video data sets with questions and answers to choose from."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

from qwen3vl.errors import InputError
from qwen3vl.evaluation.mmeb_v2.annotations import read_rows
from qwen3vl.evaluation.mmeb_v2.dataset import LoadedDataset, Row, collect
from qwen3vl.evaluation.mmeb_v2.frames import read_frames
from qwen3vl.evaluation.mmeb_v2.specs import DatasetSpec

logger = logging.getLogger(__name__)

Fields: TypeAlias = Mapping[str, Any]

MVBENCH_SUBSETS = (
    "episodic_reasoning",
    "action_sequence",
    "action_prediction",
    "action_antonym",
    "fine_grained_action",
    "unexpected_action",
    "object_existence",
    "object_interaction",
    "object_shuffle",
    "moving_direction",
    "action_localization",
    "scene_transition",
    "action_count",
    "moving_count",
    "moving_attribute",
    "state_change",
    "fine_grained_pose",
    "character_order",
    "egocentric_navigation",
    "counterfactual_inference",
)
"""Configurations of MVBench in the order in which they are read."""


@dataclass(frozen=True, slots=True)
class _Question:
    """A question about a video.

    Attributes:
        video: Name of the video, and of the folder of its frames unless `folder` is given.
        text: The question with the answers to choose from.
        names: Names of the candidates.
        texts: What is embedded of them.
        right: Index of the right candidate; -1 if it is not among them.
        answer: The answer as the file of queries has it.
        label: Name of the right candidate.
        folder: Folder of the frames.
        details: What else the file of queries says.
    """

    video: Any
    text: str
    names: Sequence[str]
    texts: Sequence[str]
    right: int
    answer: str
    label: str
    folder: str | None = None
    details: Fields = field(default_factory=dict)


def load_video_answers(spec: DatasetSpec, data: Path) -> LoadedDataset:
    """Read a data set of questions about videos, each with answers of its own.

    Args:
        spec: The data set.
        data: The folder of all data, with frames; videos are not cut into frames.

    Returns:
        The data set. Candidates are named by the answers with their letters, which are not embedded in Video-MME and
        EgoSchema.
    """
    return collect(spec, _rows(spec, data))


def _rows(spec: DatasetSpec, data: Path) -> Iterator[Row]:
    columns, parse = _PARSERS[spec.loader]
    for fields in islice(_read(spec, data, columns), spec.max_queries):
        question = parse(fields)
        frames = read_frames(spec, data, question.folder or str(question.video), spec.num_frames)
        query = {"video": frames, "text": question.text, "instruction": spec.instructions[0]}
        details = {
            "video_id": question.video,
            "query": question.text,
            "answer": question.answer,
            "answer_idx": question.right,
            **question.details,
            **({"qry_frame_paths": frames} if spec.loader in _LISTS_FRAMES else {}),
        }
        candidates = [(name, {"text": text}) for name, text in zip(question.names, question.texts, strict=True)]
        yield Row(query, candidates, question.label, details=details)


def _read(spec: DatasetSpec, data: Path, columns: Sequence[str]) -> Iterator[Fields]:
    if spec.loader != "mvbench":
        yield from read_rows(data, spec.source, columns)
        return
    for subset in MVBENCH_SUBSETS:
        for fields in read_rows(data, replace(spec.source, config=subset), columns):
            yield {**fields, "subset": subset}


def _videomme(fields: Fields) -> _Question:
    options = fields["options"]
    right = _index("ABCD", fields["answer"], fields["question_id"])
    return _Question(
        video=fields["videoID"],
        text="\n".join([fields["question"], *options]),
        names=options,
        texts=[_without_letter(option) for option in options],
        right=right,
        answer=fields["answer"],
        label=options[right],
        details={name: fields[name] for name in ("question_id", "domain", "sub_category")},
    )


def _egoschema(fields: Fields) -> _Question:
    options = fields["option"]
    right = int(fields["answer"])
    return _Question(
        video=fields["video_idx"],
        text=" ".join([fields["question"], *options]),
        names=options,
        texts=[_without_letter(option) for option in options],
        right=right,
        answer=options[right],
        label=options[right],
        details={"question_id": fields["question_idx"]},
    )


def _activitynetqa(fields: Fields) -> _Question:
    options = ("yes", "no")
    return _Question(
        video=fields["video_name"],
        text=f"{fields['question']}? (A) yes; (B) no.",
        names=options,
        texts=options,
        right=_index(options, fields["answer"], fields["question_id"]),
        answer=fields["answer"],
        label=fields["answer"],
        folder=f"v_{fields['video_name']}",
        details={"question_id": fields["question_id"]},
    )


def _nextqa(fields: Fields) -> _Question:
    options = [fields[f"a{number}"] for number in range(5)]
    lettered = _with_letters(options)
    right = fields["answer"]
    return _Question(
        video=fields["video"],
        text=_listing(fields["question"], lettered),
        names=lettered,
        texts=lettered,
        right=right,
        answer=options[right],
        label=lettered[right],
        details={"question_id": fields["qid"], "type": fields["type"]},
    )


def _mvbench(fields: Fields) -> _Question:
    options, answer = fields["candidates"], fields["answer"]
    folder = f"{fields['subset']}/{fields['video']}"
    lettered = _with_letters(options)
    right = max((index for index, option in enumerate(options) if option == answer), default=-1)
    if right < 0:
        logger.warning("MVBench %s: the answer %r is none of %s; the query counts as wrong", folder, answer, options)
    label = _with_letter(right, answer)
    return _Question(
        video=fields["video"],
        text=_listing(fields["question"], lettered),
        names=lettered,
        texts=lettered,
        right=right,
        answer=label,
        label=label,
        folder=folder,
        details={"subset": fields["subset"]},
    )


def _with_letters(options: Sequence[str]) -> list[str]:
    return [_with_letter(number, option) for number, option in enumerate(options)]


def _with_letter(number: int, option: str) -> str:
    return f"({chr(ord('A') + number)}) {option}"


def _without_letter(option: str) -> str:
    _, dot, text = option.partition(". ")
    return text.strip(". ") if dot else option


def _listing(question: str, options: Sequence[str]) -> str:
    return "\n".join([question, "Options:", *options]).rstrip()


def _index(options: Sequence[str], answer: str, question: object) -> int:
    if answer not in options:
        raise InputError(f"question {question}: the answer {answer!r} is none of {list(options)}. Download it again.")
    return options.index(answer)


_PARSERS: Mapping[str, tuple[Sequence[str], Callable[[Fields], _Question]]] = {
    "videomme": (("question", "videoID", "options", "answer", "question_id", "domain", "sub_category"), _videomme),
    "nextqa": (("video", "question", "answer", "qid", "type", "a0", "a1", "a2", "a3", "a4"), _nextqa),
    "egoschema": (("video_idx", "question", "answer", "question_idx", "option"), _egoschema),
    "mvbench": (("video", "question", "candidates", "answer"), _mvbench),
    "activitynetqa": (("video_name", "question", "answer", "question_id"), _activitynetqa),
}
"""By loader: the columns that are read, and what is made of them."""
_LISTS_FRAMES = ("egoschema", "activitynetqa")
"""Loaders that note the paths of the frames in the file of queries."""

LOADERS: Mapping[str, Callable[[DatasetSpec, Path], LoadedDataset]] = dict.fromkeys(_PARSERS, load_video_answers)
