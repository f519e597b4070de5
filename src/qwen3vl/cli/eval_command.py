"""The options of `qwen3vl eval`."""

from __future__ import annotations

from typing import Annotated

import typer

from qwen3vl.cli.options import (
    MAX_HITS,
    OUTPUT_PANEL,
    QUERY_PANEL,
    RERANK_PANEL,
    STORE_PANEL,
    AdapterOption,
    CollectionOption,
    DeviceOption,
    DtypeOption,
    IsolatedOption,
    JsonOption,
    MaxMediaOption,
    ModeName,
    RerankerAdapterOption,
    RerankerOption,
    StoreModelOption,
    VerboseOption,
    expand_home,
)
from qwen3vl.cli.output import command_output


def eval_command(
    context: typer.Context,
    queries: Annotated[
        str,
        typer.Argument(
            metavar="QUERIES", help="A file of JSON lines, or a folder in BEIR's layout.", callback=expand_home
        ),
    ],
    *,
    store: Annotated[
        list[str],
        typer.Option(
            "--store",
            metavar="DIR-or-URL",
            help="As for search. Several are compared: copies of the first in other layouts.",
            rich_help_panel=STORE_PANEL,
        ),
    ],
    collection: CollectionOption = "qwen3vl",
    split: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Which qrels of a folder in BEIR's layout.",
            show_default="test, or the only ones",
            rich_help_panel=QUERY_PANEL,
        ),
    ] = None,
    allow_missing: Annotated[
        bool,
        typer.Option(
            "--allow-missing",
            help="Count relevant names that no document has as not found; otherwise they are errors.",
            rich_help_panel=QUERY_PANEL,
        ),
    ] = False,
    at: Annotated[
        list[int] | None,
        typer.Option(
            metavar="K",
            help="Number of hits that are looked at.",
            min=1,
            max=MAX_HITS,
            show_default="1, 5 and 10",
            rich_help_panel=QUERY_PANEL,
        ),
    ] = None,
    mode: Annotated[
        list[ModeName] | None,
        typer.Option(
            metavar="|".join(ModeName),
            help="Compare these modes of search.",
            show_default="hybrid if the first collection was made with --hybrid, else dense",
            rich_help_panel=QUERY_PANEL,
        ),
    ] = None,
    dimensions: Annotated[
        list[int] | None,
        typer.Option(
            metavar="VALUES",
            help="Also search by the first so many values of vectors, in mode dense.",
            rich_help_panel=QUERY_PANEL,
        ),
    ] = None,
    exact: Annotated[
        bool,
        typer.Option(
            "--exact",
            help="Also search without index, quantized and short vectors (not in Chroma).",
            rich_help_panel=QUERY_PANEL,
        ),
    ] = False,
    instruction: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TEXT", help="Also search with this instruction of the queries.", rich_help_panel=QUERY_PANEL
        ),
    ] = None,
    rerank: Annotated[
        bool,
        typer.Option("--rerank", help="Also let the reranker sort the nearest hits.", rich_help_panel=RERANK_PANEL),
    ] = False,
    reranker: RerankerOption = None,
    reranker_adapter: RerankerAdapterOption = None,
    candidates: Annotated[
        list[int] | None,
        typer.Option(
            metavar="COUNT",
            help="How many hits the reranker scores. Implies --rerank.",
            max=MAX_HITS,
            show_default="20",
            rich_help_panel=RERANK_PANEL,
        ),
    ] = None,
    rerank_instruction: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TEXT", help="Also rerank with this instruction. Implies --rerank.", rich_help_panel=RERANK_PANEL
        ),
    ] = None,
    model: StoreModelOption = None,
    adapter: AdapterOption = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    isolated: IsolatedOption = False,
    max_media: MaxMediaOption = 512,
    html: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Write a page with plots and the worst misses.",
            callback=expand_home,
            rich_help_panel=OUTPUT_PANEL,
        ),
    ] = None,
    json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Measure how well queries with known answers find them, and compare settings.

    Options that may be given several times are combined into a grid. Its settings are compared with the first one.
    For the public data sets of MMEB-v2 see `qwen3vl eval mmeb-v2 --help`.
    """
    with command_output(as_json=json, verbose=verbose or context.obj) as console:
        from qwen3vl.cli.evaluate import GridChoice, run_eval
        from qwen3vl.cli.models import ModelChoice, media_policy

        code = run_eval(
            queries,
            split=split,
            locations=[expand_home(location) or "" for location in store],
            collection=collection,
            choice=ModelChoice(model, device, dtype, media_policy(isolated=isolated, max_media=max_media), adapter),
            grid_choice=GridChoice(
                modes=tuple(name.value for name in mode or ()),
                dimensions=tuple(dimensions or ()),
                exact=exact,
                instructions=tuple(instruction or ()),
                rerank=rerank or bool(reranker or reranker_adapter or candidates or rerank_instruction),
                candidates=tuple(candidates or ()),
                rerank_instructions=tuple(rerank_instruction or ()),
            ),
            reranker=reranker,
            reranker_adapter=reranker_adapter,
            cutoffs=at,
            allow_missing=allow_missing,
            html=html,
            console=console,
            as_json=json,
        )
    raise typer.Exit(code)
