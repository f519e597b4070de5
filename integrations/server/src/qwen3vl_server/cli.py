"""`qwen3vl serve`: its options. What it does is imported when it runs, so that `--help` stays fast."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qwen3vl.cli.options import MODEL_PANEL, DeviceOption, DtypeOption, VerboseOption, expand_home, positive_seconds
from qwen3vl.cli.output import command_output

app = typer.Typer(name="serve", add_completion=False, pretty_exceptions_enable=False)

_SERVER_PANEL = "Server"
_LIBRARY_PANEL = "Search page and documents"
_LIMITS_PANEL = "Limits"
_MIB = 2**20


@app.command()
def serve(
    context: typer.Context,
    *,
    embedder: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="The embedding model: hub id, folder or 'tiny'.",
            callback=expand_home,
            show_default="the store's",
            rich_help_panel=MODEL_PANEL,
        ),
    ] = None,
    reranker: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="The reranker: hub id, folder or 'tiny'.",
            callback=expand_home,
            rich_help_panel=MODEL_PANEL,
        ),
    ] = None,
    adapter: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=LOCATION",
            help="LoRA adapter of the embedding model, a folder or hub id, which requests call NAME. May be repeated.",
            rich_help_panel=MODEL_PANEL,
        ),
    ] = None,
    reranker_adapter: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=LOCATION", help="The same for the reranker. May be repeated.", rich_help_panel=MODEL_PANEL
        ),
    ] = None,
    embedder_name: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="What requests call the embedding model.",
            show_default="its hub id, or the last part of its folder",
            rich_help_panel=MODEL_PANEL,
        ),
    ] = None,
    reranker_name: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="What requests call the reranker.",
            show_default="as for --embedder-name",
            rich_help_panel=MODEL_PANEL,
        ),
    ] = None,
    query_instruction: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="Instruction for what requests call queries.",
            show_default="that of documents",
            rich_help_panel=MODEL_PANEL,
        ),
    ] = None,
    document_instruction: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="Instruction for what requests call documents.",
            show_default="the model's",
            rich_help_panel=MODEL_PANEL,
        ),
    ] = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    store: Annotated[
        str | None,
        typer.Option(
            metavar="DIR-or-URL",
            help="A store to search and write: a folder, a server's URL, or either with 'chroma:' in front.",
            callback=expand_home,
            rich_help_panel=_LIBRARY_PANEL,
        ),
    ] = None,
    collection: Annotated[
        str, typer.Option(help="Name of the collection.", rich_help_panel=_LIBRARY_PANEL)
    ] = "qwen3vl",
    folder: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DIR",
            help="Files below it may be shown and reranked, if the store refers to them. May be given several times.",
            exists=True,
            file_okay=False,
            rich_help_panel=_LIBRARY_PANEL,
        ),
    ] = None,
    media: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder for the files of documents that clients send.",
            show_default="DIR.media beside the store's DIR; none beside a URL",
            rich_help_panel=_LIBRARY_PANEL,
        ),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 for all.", rich_help_panel=_SERVER_PANEL)
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.", rich_help_panel=_SERVER_PANEL)
    ] = 8000,
    api_key: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY",
            help="A key that clients may send. May be given several times; spaces separate keys in the variable.",
            envvar="QWEN3VL_API_KEY",
            rich_help_panel=_SERVER_PANEL,
        ),
    ] = None,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A name by which a server without keys is reached, such as a proxy's. May be given several times.",
            rich_help_panel=_SERVER_PANEL,
        ),
    ] = None,
    root_path: Annotated[
        str,
        typer.Option(
            metavar="PATH",
            help="Path below which a proxy has the server, such as /models. The proxy removes it from requests.",
            rich_help_panel=_SERVER_PANEL,
        ),
    ] = "",
    media_urls: Annotated[
        bool,
        typer.Option(
            "--media-urls",
            help="Fetch http(s) URLs of images and videos, from public addresses.",
            rich_help_panel=_SERVER_PANEL,
        ),
    ] = False,
    max_body: Annotated[
        int, typer.Option(metavar="MIB", min=1, help="Size of a request in MiB.", rich_help_panel=_LIMITS_PANEL)
    ] = 64,
    max_upload: Annotated[
        int,
        typer.Option(metavar="MIB", min=1, help="Size of a form with documents in MiB.", rich_help_panel=_LIMITS_PANEL),
    ] = 256,
    max_media: Annotated[
        int,
        typer.Option(metavar="MIB", min=1, help="Size of an image or video in MiB.", rich_help_panel=_LIMITS_PANEL),
    ] = 32,
    media_cache: Annotated[
        int,
        typer.Option(
            metavar="MIB",
            min=0,
            help="Size of the media that are kept, which `Embedder(URL)` need not send again.",
            rich_help_panel=_LIMITS_PANEL,
        ),
    ] = 256,
    max_items: Annotated[
        int, typer.Option(min=1, help="Inputs or documents of a request.", rich_help_panel=_LIMITS_PANEL)
    ] = 2048,
    max_waiting_items: Annotated[
        int, typer.Option(min=1, help="Items of all requests at a time.", rich_help_panel=_LIMITS_PANEL)
    ] = 16384,
    timeout: Annotated[
        float,
        typer.Option(
            metavar="SECONDS", help="Duration of a request.", callback=positive_seconds, rich_help_panel=_LIMITS_PANEL
        ),
    ] = 300.0,
    verbose: VerboseOption = False,
) -> None:
    """Serve models to many clients, in the dialects of OpenAI, Cohere, Voyage, Jina and vLLM, and search a store."""
    with command_output(as_json=False, verbose=verbose or context.obj) as console:
        from dataclasses import replace

        from qwen3vl_server.library.opening import ServedStore
        from qwen3vl_server.serving import Address, ServedModels, parse_adapters, run_server
        from qwen3vl_server.settings import SERVER_POLICY, ServerSettings

        settings = ServerSettings(
            api_keys=tuple(api_key or ()),
            allowed_hosts=tuple(allowed_host or ()),
            embedder_name=embedder_name,
            reranker_name=reranker_name,
            query_instruction=query_instruction,
            document_instruction=document_instruction,
            max_body_bytes=max_body * _MIB,
            max_upload_bytes=max_upload * _MIB,
            max_waiting_bytes=max(max_body * _MIB, ServerSettings().max_waiting_bytes),
            max_cached_bytes=media_cache * _MIB,
            max_items=max_items,
            max_waiting_items=max_waiting_items,
            timeout_s=timeout,
        )
        policy = replace(SERVER_POLICY, urls=media_urls, max_bytes=max_media * _MIB)
        models = ServedModels(
            embedder, reranker, device, dtype, policy, parse_adapters(adapter), parse_adapters(reranker_adapter)
        )
        served_store = None if store is None else ServedStore(store, collection, tuple(folder or ()), media)
        address = Address(host, port, root_path)
        run_server(models, settings, served_store=served_store, address=address, console=console)
