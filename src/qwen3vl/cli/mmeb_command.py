"""The options of `qwen3vl eval mmeb-v2`."""

from __future__ import annotations

from typing import Annotated

import typer

from qwen3vl.cli.options import (
    MODEL_PANEL,
    OUTPUT_PANEL,
    RERANK_PANEL,
    DeviceOption,
    DtypeOption,
    IsolatedOption,
    JsonOption,
    MaxMediaOption,
    RerankerAdapterOption,
    VerboseOption,
    expand_home,
)
from qwen3vl.cli.output import command_output


def mmeb_command(
    context: typer.Context,
    *,
    data: Annotated[
        str,
        typer.Option(metavar="DIR", help="The data sets in their published layout.", callback=expand_home),
    ],
    datasets: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Data sets, groups as IMG_CLS, or image, video or visdoc. Several with commas or repeatedly.",
            show_default="all",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Hub id, folder, 'tiny' or the URL of a server.",
            callback=expand_home,
            show_default="Qwen/Qwen3-VL-Embedding-2B",
            rich_help_panel=MODEL_PANEL,
        ),
    ] = None,
    adapter: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="LoRA adapter of the model: folder, hub id, or name in the model's server.",
            callback=expand_home,
            rich_help_panel=MODEL_PANEL,
        ),
    ] = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    isolated: IsolatedOption = False,
    max_media: MaxMediaOption = 512,
    rerank: Annotated[
        bool,
        typer.Option(
            "--rerank", help="Also rerank what the data sets of retrieval found.", rich_help_panel=RERANK_PANEL
        ),
    ] = False,
    reranker: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Hub id, folder, 'tiny' or the URL of a server. Implies --rerank.",
            callback=expand_home,
            show_default="the one that goes with the model",
            rich_help_panel=RERANK_PANEL,
        ),
    ] = None,
    reranker_adapter: RerankerAdapterOption = None,
    top_k: Annotated[
        int,
        typer.Option(metavar="COUNT", min=1, help="How many candidates are reranked.", rich_help_panel=RERANK_PANEL),
    ] = 100,
    out: Annotated[
        str,
        typer.Option(
            metavar="DIR",
            help="Where results are written; those that are there are kept.",
            callback=expand_home,
            rich_help_panel=OUTPUT_PANEL,
        ),
    ] = "mmeb-v2-results",
    pickles: Annotated[
        bool,
        typer.Option(
            "--pickles", help="Also write vectors in the files of the official scripts.", rich_help_panel=OUTPUT_PANEL
        ),
    ] = False,
    json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Evaluate models on the data sets of MMEB-v2, as the official scripts do.

    Data sets that have results are passed over.
    """
    with command_output(as_json=json, verbose=verbose or context.obj, resumable=True) as console:
        from qwen3vl.cli.mmeb import RerankChoice, run_mmeb
        from qwen3vl.cli.models import ModelChoice, media_policy

        wants_reranker = rerank or bool(reranker or reranker_adapter)
        code = run_mmeb(
            data,
            out,
            datasets=[name for names in datasets or () for name in names.split(",")],
            choice=ModelChoice(model, device, dtype, media_policy(isolated=isolated, max_media=max_media), adapter),
            rerank=RerankChoice(reranker, reranker_adapter, top_k) if wants_reranker else None,
            pickles=pickles,
            console=console,
            as_json=json,
        )
    raise typer.Exit(code)
