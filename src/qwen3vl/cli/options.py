"""Options that several commands have in common."""

from __future__ import annotations

import math
import os
import re
from enum import StrEnum
from typing import Annotated, Any, TypeAlias

import typer

STORE_PANEL = "Store"
LAYOUT_PANEL = "Layout of a new collection"
MODEL_PANEL = "Model and device"
QUERY_PANEL = "Query"
RERANK_PANEL = "Reranking"
DOCUMENTS_PANEL = "Documents"
OUTPUT_PANEL = "Output"
MAX_HITS = 1_000_000
"""The largest number of hits of a search; stores cannot take numbers of more than 64 bits."""


class KindName(StrEnum):
    """Kinds of documents, as stored. Typer reads the choices of a repeated option from an enumeration."""

    PICTURE = "picture"
    PAGE = "page"
    CLIP = "clip"
    TEXT = "text"


class ModeName(StrEnum):
    """What a search compares, as in `qwen3vl.stores.Mode`."""

    DENSE = "dense"
    TEXT = "text"
    HYBRID = "hybrid"


class QuantizationName(StrEnum):
    """Quantizations of `qwen3vl_qdrant.Layout`; `none` for full vectors where the source has others."""

    NONE = "none"
    SCALAR = "scalar"
    TURBO = "turbo"
    BINARY = "binary"


_HOME_PATH = re.compile(r"(?P<integration>(?:\w+:)?)(?P<path>~.*)", re.DOTALL)
"""A path that begins with `~`, perhaps behind an integration's name."""


def expand_home(value: str | None) -> str | None:
    """Replace `~` and `~user` in an option that is a path, where the shell left it.

    Args:
        value: The option's value, perhaps with an integration's name in front, as `chroma:~/library`.

    Returns:
        The value with the home folder.

    Raises:
        typer.BadParameter: There is no such user.
    """
    match = _HOME_PATH.fullmatch(value or "")
    if match is None:
        return value
    path = os.path.expanduser(match["path"])  # noqa: PTH111 (Path.expanduser raises an error of its own)
    if path.startswith("~"):
        raise typer.BadParameter(f"{match['path']}: there is no such user; write ./ before the name of a file")
    return f"{match['integration']}{path}"


ServeOption: TypeAlias = Annotated[
    bool,
    typer.Option("--serve", help="Serve the library with its search page at the end.", rich_help_panel=OUTPUT_PANEL),
]
PortOption: TypeAlias = Annotated[
    int, typer.Option(min=0, max=65535, help="Port for --serve; 0 takes a free one.", rich_help_panel=OUTPUT_PANEL)
]
UrlOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--url",
        metavar="URL",
        help="Check the server at this address instead of this installation.",
        show_default=False,
    ),
]
StoreOption: TypeAlias = Annotated[
    str,
    typer.Option(
        "--store",
        metavar="DIR-or-URL",
        help="A folder, a server's URL, or either with 'chroma:' in front.",
        callback=expand_home,
        rich_help_panel=STORE_PANEL,
    ),
]
CollectionOption: TypeAlias = Annotated[
    str, typer.Option("--collection", metavar="NAME", help="The collection in the store.", rich_help_panel=STORE_PANEL)
]
ShortOption: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "--short",
        metavar="VALUES",
        help="Also store the first so many values of each vector, which find the candidates (Qdrant).",
        rich_help_panel=LAYOUT_PANEL,
    ),
]
QuantizationOption: TypeAlias = Annotated[
    QuantizationName | None,
    typer.Option(
        "--quantization",
        help="Store a smaller form of the vectors, which finds the candidates (Qdrant).",
        rich_help_panel=LAYOUT_PANEL,
    ),
]
HybridOption: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--hybrid",
        help="Let it be searched by words as well: texts, PDF pages' texts and file names.",
        rich_help_panel=LAYOUT_PANEL,
    ),
]
LanguageOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--language",
        metavar="NAME",
        help="Language of the texts, for words in other forms. Implies --hybrid.",
        show_default="english",
        rich_help_panel=LAYOUT_PANEL,
    ),
]
KindOption: TypeAlias = Annotated[
    list[KindName] | None,
    typer.Option(
        "--kind",
        metavar="|".join(KindName),
        help="Only hits of this kind. May be given several times.",
        rich_help_panel=QUERY_PANEL,
    ),
]
ModeOption: TypeAlias = Annotated[
    ModeName | None,
    typer.Option(
        "--mode",
        help="Search by vectors, by words, or by both.",
        show_default="hybrid if the collection was made with --hybrid, else dense",
        rich_help_panel=QUERY_PANEL,
    ),
]
RerankerOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--reranker",
        metavar="NAME",
        help="Hub id, folder, 'tiny' or the URL of a server. Implies --rerank.",
        callback=expand_home,
        show_default="the one that goes with the store's model",
        rich_help_panel=RERANK_PANEL,
    ),
]
RerankerAdapterOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--reranker-adapter",
        metavar="NAME",
        help="LoRA adapter of the reranker: folder, hub id, or name in its server. Implies --rerank.",
        callback=expand_home,
        rich_help_panel=RERANK_PANEL,
    ),
]
StoreModelOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="NAME",
        help="Another name or folder of the store's model, or the URL of a server that has it.",
        callback=expand_home,
        rich_help_panel=MODEL_PANEL,
    ),
]
RevisionOption: TypeAlias = Annotated[
    str | None,
    typer.Option("--revision", help="Branch, tag or commit of the model's repository.", rich_help_panel=MODEL_PANEL),
]
AdapterOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--adapter",
        metavar="NAME",
        help="LoRA adapter of the model: folder, hub id, or name in the model's server.",
        callback=expand_home,
        show_default="the store's",
        rich_help_panel=MODEL_PANEL,
    ),
]
DeviceOption: TypeAlias = Annotated[
    str,
    typer.Option(
        "--device",
        metavar="DEVICE",
        help="auto, cpu, cuda, cuda:1 or mps; several as cuda:0,cuda:1 or cuda:all.",
        rich_help_panel=MODEL_PANEL,
    ),
]
DtypeOption: TypeAlias = Annotated[
    str,
    typer.Option(
        "--dtype",
        metavar="DTYPE",
        help="auto, float32, bfloat16 or float16; int8 or fp8 store the weights in 8 bits.",
        rich_help_panel=MODEL_PANEL,
    ),
]
RayOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="ADDRESS",
        help="Work on a Ray cluster, into a store that is a server: 'auto' is that of this machine, 'local' a new "
        "one; or ray://HOST:PORT.",
        rich_help_panel=MODEL_PANEL,
    ),
]
IsolatedOption: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--isolated",
        help="Decode in processes that end if a file takes too long or too much memory: for files of strangers.",
        rich_help_panel=DOCUMENTS_PANEL,
    ),
]
MaxMediaOption: TypeAlias = Annotated[
    int,
    typer.Option(
        "--max-media",
        metavar="MIB",
        min=1,
        help="Maximum size of an image, PDF, video or text in MiB (MediaPolicy.max_bytes).",
        rich_help_panel=DOCUMENTS_PANEL,
    ),
]
JsonOption: TypeAlias = Annotated[
    bool, typer.Option("--json", help="Print the result as JSON on standard output.", rich_help_panel=OUTPUT_PANEL)
]
VerboseOption: TypeAlias = Annotated[
    bool, typer.Option("--verbose", help="Show the library's log messages.", rich_help_panel=OUTPUT_PANEL)
]


def positive_seconds(value: float) -> float:
    """Check that an option is a positive, finite number of seconds.

    Args:
        value: The option's value.

    Returns:
        The same value.

    Raises:
        typer.BadParameter: If it is not.
    """
    if not (math.isfinite(value) and value > 0):
        raise typer.BadParameter(f"{value} is not a positive number")
    return value


def layout_fields(
    short: int | None, quantization: QuantizationName | None, hybrid: bool | str
) -> dict[str, Any] | None:
    """Return the layout that the options ask for, as `open_store` accepts it.

    Args:
        short: The option `--short`.
        quantization: The option `--quantization`.
        hybrid: The option `--hybrid`, or the language.

    Returns:
        The fields of a `Layout`; None without any of the options.
    """
    if short is None and quantization is None and not hybrid:
        return None
    is_quantized = quantization not in (None, QuantizationName.NONE)
    return {"short": short, "quantization": str(quantization) if is_quantized else None, "hybrid": hybrid}
