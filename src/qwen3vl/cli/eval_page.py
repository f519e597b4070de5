"""The page of an evaluation: figures with plots, and the worst misses with their pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil, floor
from pathlib import Path
from typing import Any

from qwen3vl.cli.page import document_figure, hit_figure, render_page
from qwen3vl.documents import Document
from qwen3vl.evaluation import Evaluation, SettingResult, find_relevant
from qwen3vl.inputs import is_video
from qwen3vl.media.policy import MediaPolicy
from qwen3vl.media.preview import data_uri, preview

SIGNIFICANT = 0.05
"""Means with a smaller p-value are coloured."""
_AXIS_START, _AXIS_LENGTH = 4, 100
"""Position of a plot's axis in its image."""
NUM_MISSES = 12
HITS_SHOWN = 5
NOT_FOUND_SHOWN = 3


def write_eval_page(
    path: Path, evaluation: Evaluation, summary: Mapping[str, Any], warnings: Sequence[str], policy: MediaPolicy
) -> None:
    """Write a page that refers to nothing outside itself.

    Args:
        path: The file to write; missing folders are created.
        evaluation: The evaluation.
        summary: Its figures, from `Evaluation.to_dict`.
        warnings: Lines about queries and names that were left out.
        policy: Limits on the media that are shown.
    """
    measures, settings = summary["measures"], summary["settings"]
    all_queries = [setting["groups"]["all"] for setting in settings]
    result = evaluation.best
    misses = evaluation.worst(result, NUM_MISSES)
    render_page(
        path,
        "evaluation.html",
        title="Evaluation",
        note=f"{len(summary['queries'])} queries, {len(settings)} settings",
        warnings=warnings,
        measures=measures,
        by_measure=_rows(settings, [[figures[name] for name in measures] for figures in all_queries]),
        groups=[f"{name} ({count})" for name, count in summary["groups"].items()],
        by_group=_rows(
            settings, [[setting["groups"][name][measures[0]] for name in summary["groups"]] for setting in settings]
        ),
        misses_note=f"The queries with the lowest {measures[0]} of the setting with the highest mean, "
        f"“{result.setting.name}”. Relevant documents have a green frame; those that were not found come last."
        if misses
        else f"No query of “{result.setting.name}” has a {measures[0]} below 1.",
        sections=[_section(evaluation, result, index, policy) for index in misses],
    )


def _rows(
    settings: Sequence[Mapping[str, Any]], cells: Sequence[Sequence[Mapping[str, Any]]]
) -> tuple[list[dict[str, Any]], tuple[float, float]]:
    """Return the rows of a table, with what its plots need, and the ends of the plots' axis."""
    start = floor(10 * min(figures["low"] for row in cells for figures in row)) / 10
    end = max(ceil(10 * max(figures["high"] for row in cells for figures in row)) / 10, start + 0.1)
    rows = []
    for setting, row in zip(settings, cells, strict=True):
        shown = []
        for figures, first in zip(row, cells[0], strict=True):
            x, low, high = (
                round(_AXIS_START + _AXIS_LENGTH * (figures[name] - start) / (end - start), 2)
                for name in ("mean", "low", "high")
            )
            shown.append({**figures, "change": _change(figures, first), "x": x, "x_low": low, "x_high": high})
        rows.append({"name": setting["name"], "cells": shown})
    return rows, (start, end)


def _change(figures: Mapping[str, Any], first: Mapping[str, Any]) -> str:
    if figures["p"] is None or figures["p"] >= SIGNIFICANT:
        return ""
    return "better" if figures["mean"] > first["mean"] else "worse"


def _section(evaluation: Evaluation, result: SettingResult, index: int, policy: MediaPolicy) -> dict[str, Any]:
    """Return what the template shows of a miss."""
    query, grades = evaluation.queries[index], evaluation.relevance.grades[index]
    hits = result.hits[index]
    found = find_relevant(hits, grades)
    not_found = [name for name in grades if name not in found]
    documents = [evaluation.relevance.documents[name] for name in not_found if name in evaluation.relevance.documents]
    figures = [
        hit_figure(hit, policy, is_match=name is not None)
        for hit, name in zip(hits[:HITS_SHOWN], found[:HITS_SHOWN], strict=True)
    ]
    image = _query_preview(query.input, policy)
    main = evaluation.measures[0]
    ranks = ", ".join(str(rank) for rank, name in enumerate(found, start=1) if name is not None) or "none"
    return {
        "image": image,
        "text": query.input.get("text"),
        "note": f"query {query.id}: {main} {result.scores[main][index]:.3f}; relevant hits at ranks: {ranks}; "
        f"{len(not_found)} of {len(grades)} not found",
        "hits": figures + [document_figure(document, policy) for document in documents[:NOT_FOUND_SHOWN]],
    }


def _query_preview(query: Mapping[str, Any], policy: MediaPolicy) -> str | None:
    """Return a thumbnail of a query's first image or video, if it has one."""
    medium = query.get("image") or query.get("video")
    while isinstance(medium, list):
        medium = medium[0]
    if medium is None:
        return None
    document = Document(medium, "clip", video=medium) if is_video(medium) else Document(medium, "picture", image=medium)
    thumbnail = preview(document, policy)
    return None if thumbnail is None else data_uri(thumbnail)
