"""The commands about stores: `index`, `search` and `copy`, with their options.

What a command does is imported when it runs, so that `--help` stays fast.
"""

from __future__ import annotations

from typing import Annotated

import typer

from qwen3vl.cli.options import (
    DOCUMENTS_PANEL,
    MAX_HITS,
    MODEL_PANEL,
    OUTPUT_PANEL,
    QUERY_PANEL,
    RERANK_PANEL,
    STORE_PANEL,
    AdapterOption,
    CollectionOption,
    DeviceOption,
    DtypeOption,
    HybridOption,
    IsolatedOption,
    JsonOption,
    KindOption,
    LanguageOption,
    MaxMediaOption,
    ModeOption,
    QuantizationOption,
    RayOption,
    RerankerAdapterOption,
    RerankerOption,
    RevisionOption,
    ShortOption,
    StoreModelOption,
    StoreOption,
    VerboseOption,
    expand_home,
    layout_fields,
    positive_seconds,
)
from qwen3vl.cli.output import command_output


def index(
    context: typer.Context,
    paths: Annotated[list[str], typer.Argument(metavar="PATH", help="Folders, glob patterns or files.")],
    *,
    store: StoreOption,
    collection: CollectionOption = "qwen3vl",
    segment: Annotated[
        float,
        typer.Option(
            metavar="SECONDS",
            help="Length of the parts that a video is cut into.",
            callback=positive_seconds,
            rich_help_panel=DOCUMENTS_PANEL,
        ),
    ] = 30.0,
    fuse_page_text: Annotated[
        bool,
        typer.Option(
            "--fuse-page-text",
            help="Embed a PDF page's text together with its image.",
            rich_help_panel=DOCUMENTS_PANEL,
        ),
    ] = False,
    hybrid: HybridOption = False,
    language: LanguageOption = None,
    keep: Annotated[
        bool,
        typer.Option(
            "--keep",
            help="Keep vectors of files that were deleted or changed below the given paths.",
            rich_help_panel=DOCUMENTS_PANEL,
        ),
    ] = False,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Hub id, folder, 'tiny' or the URL of a server.",
            callback=expand_home,
            show_default="the store's, else Qwen/Qwen3-VL-Embedding-2B",
            rich_help_panel=MODEL_PANEL,
        ),
    ] = None,
    revision: RevisionOption = None,
    adapter: AdapterOption = None,
    dimensions: Annotated[
        int | None, typer.Option(help="Cut vectors to this many values.", rich_help_panel=MODEL_PANEL)
    ] = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    ray: RayOption = None,
    isolated: IsolatedOption = False,
    max_media: MaxMediaOption = 512,
    json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Embed files into a store. A second run embeds only what is new."""
    with command_output(as_json=json, verbose=verbose or context.obj, resumable=True) as console:
        from qwen3vl.cli.index import run_index
        from qwen3vl.cli.models import ModelChoice, media_policy

        code = run_index(
            paths,
            location=store,
            collection=collection,
            choice=ModelChoice(model, device, dtype, media_policy(isolated=isolated, max_media=max_media), adapter),
            revision=revision,
            dimensions=dimensions,
            segment_seconds=segment,
            fuse_page_text=fuse_page_text,
            hybrid=language or hybrid,
            sync=not keep,
            cluster=ray,
            console=console,
            as_json=json,
        )
    raise typer.Exit(code)


def search(
    context: typer.Context,
    query: Annotated[str, typer.Argument(help="Words to search by.", show_default=False)] = "",
    *,
    store: StoreOption,
    collection: CollectionOption = "qwen3vl",
    image: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="An image to search by, alone or with the words.",
            callback=expand_home,
            rich_help_panel=QUERY_PANEL,
        ),
    ] = None,
    kind: KindOption = None,
    mode: ModeOption = None,
    limit: Annotated[
        int, typer.Option(max=MAX_HITS, help="How many hits are shown.", rich_help_panel=QUERY_PANEL)
    ] = 10,
    instruction: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="The query's instruction, if it is not that of the documents.",
            rich_help_panel=QUERY_PANEL,
        ),
    ] = None,
    rerank: Annotated[
        bool,
        typer.Option(
            "--rerank", help="Let the reranker score and sort the nearest hits.", rich_help_panel=RERANK_PANEL
        ),
    ] = False,
    reranker: RerankerOption = None,
    reranker_adapter: RerankerAdapterOption = None,
    candidates: Annotated[
        int, typer.Option(max=MAX_HITS, help="How many hits the reranker scores.", rich_help_panel=RERANK_PANEL)
    ] = 20,
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
            help="Write a page with previews of the hits.",
            callback=expand_home,
            rich_help_panel=OUTPUT_PANEL,
        ),
    ] = None,
    json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Find what matches a text, an image, or both."""
    with command_output(as_json=json, verbose=verbose or context.obj) as console:
        from qwen3vl.cli.models import ModelChoice, media_policy
        from qwen3vl.cli.search import run_search

        code = run_search(
            query,
            image=image,
            location=store,
            collection=collection,
            choice=ModelChoice(model, device, dtype, media_policy(isolated=isolated, max_media=max_media), adapter),
            rerank=rerank or bool(reranker or reranker_adapter),
            reranker=reranker,
            reranker_adapter=reranker_adapter,
            candidates=candidates,
            limit=limit,
            kinds=[name.value for name in kind or ()],
            mode=None if mode is None else mode.value,
            instruction=instruction,
            html=html,
            console=console,
            as_json=json,
        )
    raise typer.Exit(code)


def copy(
    context: typer.Context,
    source: Annotated[
        str, typer.Argument(metavar="SRC", help="The store to copy from, as for --store.", callback=expand_home)
    ],
    destination: Annotated[
        str, typer.Argument(metavar="DST", help="The store to copy to, as for --store.", callback=expand_home)
    ],
    *,
    collection: CollectionOption = "qwen3vl",
    new_name: Annotated[
        str | None,
        typer.Option(
            "--to-collection",
            metavar="NAME",
            help="The collection in DST.",
            show_default="the same name",
            rich_help_panel=STORE_PANEL,
        ),
    ] = None,
    short: ShortOption = None,
    quantization: QuantizationOption = None,
    hybrid: HybridOption = False,
    language: LanguageOption = None,
    json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Copy a collection into another store, without embedding it again. A second run copies only what is missing."""
    with command_output(as_json=json, verbose=verbose or context.obj, resumable=True) as console:
        from qwen3vl.cli.copy import run_copy

        code = run_copy(
            source,
            destination,
            collection=collection,
            new_name=new_name or collection,
            layout=layout_fields(short, quantization, language or hybrid),
            console=console,
            as_json=json,
        )
    raise typer.Exit(code)
