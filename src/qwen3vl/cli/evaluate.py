"""`qwen3vl eval`: measure how well queries with known answers find them, and compare settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from qwen3vl.cli.models import ModelChoice, open_embedder, open_reranker
from qwen3vl.cli.output import EXIT_FAILED, EXIT_OK, one_line, print_json
from qwen3vl.cli.stores import open_existing, resolve_location
from qwen3vl.errors import InputError
from qwen3vl.evaluation import DEFAULT_CUTOFFS, Evaluation, Setting, check_evaluation, evaluate, grid, read_queries
from qwen3vl.stores import Mode, Store

DEFAULT_CANDIDATES = 20
_NAMES_SHOWN = 5


@dataclass(frozen=True, slots=True)
class GridChoice:
    """The options of the grid; what is empty is not varied.

    Attributes:
        modes: Modes of search; empty for that of the first store.
        dimensions: Numbers of values to compare, besides the whole vectors.
        exact: Whether to search exactly as well.
        instructions: Instructions of the queries, besides that of the documents.
        rerank: Whether to rerank as well.
        candidates: Numbers of hits that the reranker scores; empty for `DEFAULT_CANDIDATES`.
        rerank_instructions: Instructions of the reranker, besides its own.
    """

    modes: Sequence[Mode] = ()
    dimensions: Sequence[int] = ()
    exact: bool = False
    instructions: Sequence[str] = ()
    rerank: bool = False
    candidates: Sequence[int] = ()
    rerank_instructions: Sequence[str] = ()

    def settings(self, stores: Mapping[str, Store]) -> list[Setting]:
        """Return the settings.

        Args:
            stores: The stores by name.

        Returns:
            All combinations; the first is that of the first store, without what the options add.
        """
        first = next(iter(stores.values()))
        modes = self.modes or (("hybrid" if first.has_words() else "dense"),)
        return grid(
            list(stores),
            modes,
            dimensions=self.dimensions,
            exact=self.exact,
            instructions=(None, *self.instructions),
            candidates=(None, *(self.candidates or (DEFAULT_CANDIDATES,))) if self.rerank else (None,),
            rerank_instructions=(None, *self.rerank_instructions),
        )


def run_eval(
    path: str,
    *,
    split: str | None,
    locations: Sequence[str],
    collection: str,
    choice: ModelChoice,
    grid_choice: GridChoice,
    reranker: str | None,
    reranker_adapter: str | None,
    cutoffs: Sequence[int] | None,
    allow_missing: bool,
    html: str | None,
    console: Console,
    as_json: bool,
) -> int:
    """Evaluate the settings of a grid and print their figures.

    Args:
        path: The queries, as `read_queries` accepts them.
        split: As for `read_queries`.
        locations: The stores, as `open_store` accepts them.
        collection: The collection in the stores.
        choice: Model, device, dtype and media policy.
        grid_choice: What is varied.
        reranker: The reranker's name; None means the one that goes with the store's model.
        reranker_adapter: The reranker's LoRA adapter.
        cutoffs: Numbers of hits that are looked at; None is `DEFAULT_CUTOFFS`.
        allow_missing: Whether relevant names that no document has are counted, instead of being an error.
        html: File to write a page with plots and the worst misses to.
        console: Where messages and tables go.
        as_json: Whether the figures are printed as JSON.

    Returns:
        The exit code: 1 if a query cannot be used, a document cannot be reranked, or the page cannot be written.

    Raises:
        InputError: A store is named twice, the queries cannot be read, their answers are not in the store, or the page
            is a folder.
    """
    if html:
        from qwen3vl.cli.page import check_page

        check_page(Path(html))
    if len(set(map(resolve_location, locations))) < len(locations):
        raise InputError("--store names the same store twice: leave one out")
    queries = read_queries(path, split)
    with ExitStack() as stack:
        stores, recipes = {}, []
        for name, location in zip(_store_names(locations), locations, strict=True):
            stores[name], recipe = open_existing(location, collection)
            stack.callback(stores[name].close)
            recipes.append(recipe)
        settings = grid_choice.settings(stores)
        relevance = check_evaluation(  # before models are loaded
            queries,
            stores,
            settings,
            recipes[0].dimensions,
            has_reranker=grid_choice.rerank,
            cutoffs=cutoffs or DEFAULT_CUTOFFS,
            allow_missing=allow_missing,
        )
        evaluation = evaluate(
            queries,
            stores,
            settings,
            open_embedder(choice, recipes[0]),
            open_reranker(reranker, choice, recipes[0], adapter=reranker_adapter) if grid_choice.rerank else None,
            cutoffs=cutoffs or DEFAULT_CUTOFFS,
            relevance=relevance,
            progress=console.is_terminal,
        )
    summary, warnings = evaluation.to_dict(), _warnings(evaluation)
    page_error = None
    if html:
        from qwen3vl.cli.eval_page import write_eval_page
        from qwen3vl.cli.page import write_or_explain

        page_error = write_or_explain(
            Path(html), lambda path: write_eval_page(path, evaluation, summary, warnings, choice.policy)
        )
    for line in warnings:
        console.print(Text(one_line(line), style="yellow"))
    if as_json:
        print_json(summary)
    else:
        print_tables(console, summary)
    if html:
        console.print(page_error or f"page written: {html}", markup=False)
    return EXIT_FAILED if evaluation.failed or evaluation.unscored or page_error else EXIT_OK


def _warnings(evaluation: Evaluation) -> list[str]:
    """Return lines about queries that cannot be used, documents without a score, and names that no document has."""
    lines = []
    if evaluation.failed:
        reasons = [f"{query_id} ({reason})" for query_id, reason in evaluation.failed.items()]
        lines.append(f"{len(reasons)} queries cannot be used and are in no figure: {_first(reasons)}")
    if evaluation.unscored:
        reasons = [f"{name} ({reason})" for name, reason in evaluation.unscored.items()]
        lines.append(
            f"{len(reasons)} documents cannot be reranked and come after the others, so that the figures with the "
            f"reranker are wrong: {_first(reasons)}"
        )
    missing = evaluation.relevance.missing
    if missing:
        lines.append(
            f"{len(missing)} relevant names are of no document and count as not found: {_first(list(missing))}"
        )
    return lines


def _first(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    return "; ".join(names[:_NAMES_SHOWN]) + more


def _store_names(locations: Sequence[str]) -> list[str]:
    """Return the last parts of locations, or the whole ones if these are equal."""
    names = [Path(location).name or location for location in locations]
    return names if len(set(names)) == len(names) else list(locations)


def print_tables(console: Console, summary: Mapping[str, Any]) -> None:
    """Print all measures of all queries, and the main measure of each group of queries.

    Args:
        console: Where to print; its width is kept.
        summary: The figures, from `Evaluation.to_dict`.
    """
    settings, measures, groups = summary["settings"], summary["measures"], summary["groups"]
    for number, setting in enumerate(settings, start=1):
        console.print(Text(f"{number:3d}  {one_line(setting['name'])}"))
    numbers = [str(number) for number in range(1, len(settings) + 1)]
    # The page and the JSON have nDCG at the other cutoffs as well.
    shown = [name for name in measures if name == measures[0] or not name.startswith("ndcg")]
    _print_table(
        console,
        f"{len(summary['queries'])} queries: mean, 95 % interval, and p of the difference from the first setting",
        numbers,
        {name: [_cell(setting["groups"]["all"][name]) for setting in settings] for name in shown},
    )
    if len(groups) > 1:
        means = [[setting["groups"][name][measures[0]]["mean"] for name in groups] for setting in settings]
        _print_table(
            console,
            f"{measures[0]} of each setting, by kind of query and of relevant documents",
            [f"{name} ({count})" for name, count in groups.items()],
            {number: [f"{mean:.3f}" for mean in column] for number, column in zip(numbers, means, strict=True)},
        )


def _print_table(console: Console, title: str, rows: Sequence[str], columns: Mapping[str, Sequence[str]]) -> None:
    """Print a table, in several parts if its columns do not fit into the width of the console."""
    console.print(Text(title, style="italic"))
    total = console.width - max(map(len, rows)) - 4  # the names with a space at each side, and two borders
    available, part = total, dict[str, Sequence[str]]()
    for name, cells in columns.items():
        width = 3 + max(len(line) for text in (name, *cells) for line in text.split("\n"))
        if part and width > available:
            console.print(_table(rows, part))
            available, part = total, {}
        part[name], available = cells, available - width
    console.print(_table(rows, part))


def _table(rows: Sequence[str], columns: Mapping[str, Sequence[str]]) -> Table:
    table = Table()
    table.add_column("")
    for name in columns:
        table.add_column(name, justify="right")
    for name, *cells in zip(rows, *columns.values(), strict=True):
        table.add_row(name, *cells)
    return table


def _cell(figures: Mapping[str, float | None]) -> str:
    text = "{mean:.3f}\n{low:.2f}–{high:.2f}".format_map(figures)
    p_value = figures["p"]
    if p_value is None:
        return text
    return f"{text}\np {p_value:.3f}" if p_value >= 0.001 else f"{text}\np < .001"
