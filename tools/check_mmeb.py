"""Compares what we know of MMEB-v2 with the official repository: data sets, instructions and published figures.

Names, loaders, repositories, folders, frames and the scope of rankings are read from its YAML files and from constants
in its code, which is parsed and not run.

    python tools/check_mmeb.py --official CHECKOUT
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).parents[1]))

from qwen3vl.evaluation.mmeb_v2.catalogue import DATASETS, IMAGE_REPO
from qwen3vl.evaluation.mmeb_v2.groups import GROUPS
from qwen3vl.evaluation.mmeb_v2.published import EMBEDDING_FIGURES, RERANKER_FIGURES
from qwen3vl.evaluation.mmeb_v2.specs import DatasetSpec

MODALITIES = ("image", "video", "visdoc")


def main() -> int:
    """Print what differs, and return 1 if anything does."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--official", type=Path, required=True)
    problems = list(check(parser.parse_args().official))
    for problem in problems:
        print(problem)
    print(
        f"{len(DATASETS)} data sets: {f'{len(problems)} differences' if problems else 'all as in the official files'}"
    )
    return int(bool(problems))


def check(official: Path) -> Iterator[str]:
    """Yield a line for each difference."""
    package = official / "src/evaluation/mmeb_v2"
    scripts = official / "scripts/evaluation/mmeb_v2"
    entries = {modality: read_yaml(scripts / f"{modality}.yaml") for modality in MODALITIES}
    reranked = {name for modality in MODALITIES for name in read_yaml(scripts / f"{modality}_retrieval.yaml")}
    repositories = constant(package / "constant.py", "EVAL_DATASET_HF_PATH")
    instructions = read_instructions(package / "data/datasets")
    categories = constant(package / "gather_results.py", "TASK_CATEGORIES")

    listed = [name for modality in MODALITIES for name in entries[modality]]
    yield from differ("names of data sets", sorted(DATASETS), sorted(listed))
    yield from differ("names of groups", [group.name for group in GROUPS], list(categories))
    for group in GROUPS:
        category = categories[group.name]
        yield from differ(f"{group.name}: metric", group.metric, category["metric"])
        yield from differ(f"{group.name}: part", group.modality, category["domain"])
        members = [spec.name for spec in DATASETS.values() if spec.group == group]
        yield from differ(f"{group.name}: data sets", sorted(members), sorted(category["tasks"]))
    for spec in DATASETS.values():
        entry = entries[spec.group.modality].get(spec.name, {})
        for what, (ours, theirs) in compare_entry(spec, entry, spec.name in reranked).items():
            yield from differ(f"{spec.name}: {what}", ours, theirs)
        yield from differ(f"{spec.name}: source", *compare_source(spec, repositories))
        expected = instructions[spec.loader]
        known = expected[spec.dataset_name] if isinstance(expected, Mapping) else expected
        yield from differ(f"{spec.name}: instructions", sorted(spec.instructions), sorted(known))
    yield from check_figures((official / "README.md").read_text(encoding="utf-8"))


def compare_entry(spec: DatasetSpec, entry: Mapping[str, Any], reranked: bool) -> dict[str, tuple[Any, Any]]:
    """Return what we have and what an entry of a YAML file has, by what it is."""
    samples = entry.get("num_sample_per_subset", "None")
    return {
        "loader": (spec.loader, entry.get("dataset_parser")),
        "name in the loader": (spec.dataset_name, entry.get("dataset_name")),
        "folder": (spec.media.rstrip("/"), (entry.get("image_root") or entry.get("frame_root") or "").rstrip("/")),
        "ranking": (spec.ranking, entry.get("eval_type", "global")),
        "queries": (spec.max_queries, None if samples == "None" else samples),
        "frames": (spec.num_frames, entry.get("num_frames", entry.get("num_video_frames"))),
        "frames of clips": (spec.num_clip_frames, entry.get("num_clip_frames")),
        "reranked": (spec.reranked, reranked),
        "metrics": ("all", entry.get("metrics", "all")),
    }


def compare_source(spec: DatasetSpec, repositories: Mapping[str, Sequence[Any]]) -> tuple[Any, Any]:
    """Return our repository, configuration and split, and the official ones."""
    ours = (spec.source.repo, spec.source.config, spec.source.split)
    if spec.group.modality == "image":
        return ours, (IMAGE_REPO, spec.dataset_name, "test")
    return ours, tuple(repositories[spec.dataset_name])


def read_instructions(folder: Path) -> dict[str, Any]:
    """Return the instructions of queries by loader, or by loader and data set; none where the rows have them."""
    by_dataset = constant(folder / "video_classification_utils.py", "DATASET_INSTRUCTION")
    # Loaders replace a colon at the end by a full stop; the texts have none.
    of_videos = {name: (text[:-1] + "." if text.endswith(":") else text,) for name, text in by_dataset.items()}
    instructions: dict[str, Any] = {}
    for file in folder.glob("*.py"):
        constants = dict(constants_of(file))
        loader = constants.get("DATASET_PARSER_NAME")
        if loader is None:
            continue
        if file.name.startswith("image_"):
            assert constants["DATASET_HF_PATH"] == IMAGE_REPO, file
        own = [text for name, text in constants.items() if name.startswith("TASK_") and "TGT" not in name]
        uses_table = "DATASET_INSTRUCTION" in file.read_text(encoding="utf-8")
        instructions[loader] = of_videos if uses_table else tuple(own)
    return instructions


def check_figures(readme: str) -> Iterator[str]:
    """Compare the published figures with the tables of the README."""
    tables = {"Image CLS": EMBEDDING_FIGURES, "MMEB-v2(Retrieval) - Avg": RERANKER_FIGURES}
    for first_column, figures in tables.items():
        header, rows = read_table(readme, first_column)
        titles = [title.removeprefix("MMEB-v2(Retrieval) - ") for title in header]
        for model, own in figures.items():
            row = dict(zip(titles, rows[model], strict=True))
            for title, figure in own.items():
                yield from differ(f"{model}: {title}", figure, float(row[title]))


def read_table(text: str, column: str) -> tuple[list[str], dict[str, list[str]]]:
    """Return the header of the Markdown table that has a column, and its rows by their first cell."""
    lines = text.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("|") and column in line)
    rows = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        rows.append([re.sub(r"\*\*", "", cell).strip() for cell in line.strip().strip("|").split("|")])
    return rows[0], {row[0]: row for row in rows[2:]}


def constant(file: Path, name: str) -> Any:
    """Return a constant of a module that is written as a literal."""
    return dict(constants_of(file))[name]


def constants_of(file: Path) -> Iterator[tuple[str, Any]]:
    """Yield the constants of a module that are written as literals, by name."""
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            try:
                yield node.targets[0].id, ast.literal_eval(node.value)
            except ValueError:
                continue


def read_yaml(file: Path) -> Mapping[str, Mapping[str, Any]]:
    """Return the entries of a YAML file by name."""
    return yaml.safe_load(file.read_text(encoding="utf-8")) or {}


def differ(what: str, ours: Any, official: Any) -> Iterator[str]:
    """Yield a line if two values are not equal."""
    if ours != official:
        yield f"{what}: {ours!r} here, {official!r} officially"


if __name__ == "__main__":
    sys.exit(main())
