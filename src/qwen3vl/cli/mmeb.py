"""`qwen3vl eval mmeb-v2`: evaluate models on the data sets of MMEB-v2, as the official scripts do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from qwen3vl.cli.models import ModelChoice, open_embedder, open_reranker
from qwen3vl.cli.output import EXIT_FAILED, EXIT_OK, one_line, print_json
from qwen3vl.errors import InputError
from qwen3vl.evaluation.mmeb_v2.catalogue import DATASETS
from qwen3vl.evaluation.mmeb_v2.files import ResultFiles
from qwen3vl.evaluation.mmeb_v2.provenance import check_origin, result_folder
from qwen3vl.evaluation.mmeb_v2.published import EMBEDDING_FIGURES, RERANKER_FIGURES
from qwen3vl.evaluation.mmeb_v2.runner import RERANK, evaluate_dataset, rerank_dataset
from qwen3vl.evaluation.mmeb_v2.selection import select
from qwen3vl.evaluation.mmeb_v2.specs import DatasetSpec
from qwen3vl.evaluation.mmeb_v2.summary import Average, Scores, average_all, average_retrieval, main_measure

_FAILURES_SHOWN = 5


@dataclass(frozen=True, slots=True)
class RerankChoice:
    """The options of the reranker.

    Attributes:
        reranker: Its name; None means the one that goes with the embedding model.
        adapter: Its LoRA adapter.
        top_k: How many candidates of each query are reranked.
    """

    reranker: str | None
    adapter: str | None
    top_k: int


def run_mmeb(
    data: str,
    out: str,
    *,
    datasets: Sequence[str],
    choice: ModelChoice,
    rerank: RerankChoice | None,
    pickles: bool,
    console: Console,
    as_json: bool,
) -> int:
    """Evaluate models on data sets and print the figures of all that are done.

    Args:
        data: The folder of all data.
        out: The folder of all results.
        datasets: Names of data sets, groups or parts; empty for all.
        choice: Embedding model, device, dtype and media policy.
        rerank: The options of the reranker; None without it.
        pickles: Whether to write vectors as the official scripts do as well.
        console: Where messages and tables go.
        as_json: Whether the figures are printed as JSON.

    Returns:
        The exit code: 1 if a data set could not be evaluated.

    Raises:
        InputError: There is no such folder or data set.
        RecipeError: The folder of results has those of another model or dtype.
    """
    specs = select(datasets)
    root = Path(data)
    if not root.is_dir():
        raise InputError(f"there is no folder {data}: --data is the folder with annotation, image-tasks, and so on")
    failed: dict[str, str] = {}
    with open_embedder(choice, None) as embedder:
        recipe = embedder.recipe
        folder = result_folder(Path(out), recipe)
        check_origin(folder / "origin.json", {"embedding model": recipe}, choice.dtype)

        def evaluate(spec: DatasetSpec) -> Mapping[str, Any]:
            files = _files(folder, spec)
            return evaluate_dataset(spec, root, embedder, files, pickles=pickles, progress=console.is_terminal)

        _run_each("evaluating", specs, evaluate, failed, console)
    scores = _read_all(folder)
    reranked: Scores | None = None
    if rerank is not None:
        chosen = [spec for spec in specs if spec.reranked and spec.name in scores]
        with open_reranker(rerank.reranker, choice, recipe, adapter=rerank.adapter) as reranker:
            rerank_folder = result_folder(Path(out), reranker.recipe)
            recipes = {"reranker": reranker.recipe, "embedding model": recipe}
            check_origin(rerank_folder / "rerank_origin.json", recipes, choice.dtype)

            def rerank_one(spec: DatasetSpec) -> Mapping[str, Any]:
                retrieved, files = _files(folder, spec), _files(rerank_folder, spec)
                progress = console.is_terminal
                return rerank_dataset(spec, root, reranker, retrieved, files, top_k=rerank.top_k, progress=progress)

            _run_each("reranking", chosen, rerank_one, failed, console)
        reranked = _read_all(rerank_folder, RERANK)
    if as_json:
        print_json(_to_dict(scores, reranked, failed))
    else:
        _print_tables(console, scores, reranked)
    for name, reason in list(failed.items())[:_FAILURES_SHOWN]:
        console.print(Text(one_line(f"{name} failed: {reason}"), style="red"))
    if len(failed) > _FAILURES_SHOWN:
        console.print(f"[red]{len(failed) - _FAILURES_SHOWN} more failed; --json names all[/red]")
    return EXIT_FAILED if failed else EXIT_OK


def _run_each(
    what: str,
    specs: Sequence[DatasetSpec],
    run: Callable[[DatasetSpec], Mapping[str, Any]],
    failed: dict[str, str],
    console: Console,
) -> None:
    """Run something for each data set, and note those that fail; the others are not affected."""
    for number, spec in enumerate(specs, start=1):
        console.print(f"{what} {spec.name}, {number} of {len(specs)}", markup=False, highlight=False)
        try:
            run(spec)
        except InputError as error:
            failed[spec.name] = str(error)


def _files(folder: Path, spec: DatasetSpec) -> ResultFiles:
    return ResultFiles(folder / spec.group.modality, spec.name)


def _read_all(folder: Path, suffix: str = "") -> Scores:
    """Return the measures of all data sets that are done, in this run or before."""
    results = {name: _files(folder, spec).read_scores(suffix) for name, spec in DATASETS.items()}
    return {name: scores for name, scores in results.items() if scores is not None}


def _to_dict(scores: Scores, reranked: Scores | None, failed: Mapping[str, str]) -> dict[str, Any]:
    """Return the figures as `--json` prints them."""
    figures: dict[str, Any] = {"averages": _averages_to_dict(average_all(scores)), "datasets": scores}
    if reranked is not None:
        figures["retrieval"] = {
            "embeddings": _averages_to_dict(average_retrieval(_only(scores, reranked))),
            "reranked": _averages_to_dict(average_retrieval(reranked)),
            "datasets": reranked,
        }
    return {**figures, "failed": failed}


def _averages_to_dict(averages: Sequence[Average]) -> dict[str, Any]:
    return {
        average.title: {"mean": average.mean, "done": average.num_done, "datasets": average.num_datasets}
        for average in averages
    }


def _only(scores: Scores, others: Scores) -> Scores:
    """Return the measures of data sets that others have as well: averages over different ones say nothing."""
    return {name: measures for name, measures in scores.items() if name in others}


def _print_tables(console: Console, scores: Scores, reranked: Scores | None) -> None:
    done = Table(title="Data sets, percent", title_justify="left")
    for name in ("", "measure", "embeddings", *(["reranked"] if reranked is not None else [])):
        done.add_column(name, justify="left" if name in ("", "measure") else "right")
    for spec in (spec for name, spec in DATASETS.items() if name in scores):
        columns = [scores, *([reranked] if reranked is not None else [])]
        done.add_row(spec.name, spec.group.metric, *(_percent(main_measure(spec, column)) for column in columns))
    console.print(done)
    measured = [("embeddings", average_all(scores))]
    console.print(_averages_table("Averages, percent, and those that are published", measured, EMBEDDING_FIGURES))
    if reranked is not None:
        measured = [("before", average_retrieval(_only(scores, reranked))), ("after", average_retrieval(reranked))]
        title = "Retrieval before and after reranking, percent, and what is published"
        console.print(_averages_table(title, measured, RERANKER_FIGURES))


def _averages_table(
    title: str, measured: Sequence[tuple[str, Sequence[Average]]], published: Mapping[str, Mapping[str, float]]
) -> Table:
    """Return a table of averages, beside those that are published."""
    table = Table(title=title, title_justify="left")
    models = [model.removeprefix("Qwen3-VL-") for model in published]
    for name in ("", "done", *(name for name, _ in measured), *models):
        table.add_column(name, justify="left" if not name else "right")
    for rows in zip(*(averages for _, averages in measured), strict=True):
        first = rows[0]
        figures = [_percent(figures[first.title]) for figures in published.values()]
        counts = f"{first.num_done}/{first.num_datasets}"
        style = "bold" if first.title == "All" or first.title.endswith("Overall") else None
        table.add_row(first.title, counts, *(_percent(row.mean) for row in rows), *figures, style=style)
    return table


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"
