"""The command line: `qwen3vl index`, `search`, `demo` and `doctor`."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence

from rich.console import Console

from qwen3vl.errors import Qwen3VLError

EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130
"""Exit codes: 0 all done; 1 something failed (an item, a check); 2 wrong usage or nothing could be done."""


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="qwen3vl", description="Search pictures, pages, clips and text by meaning.")
    parser.add_argument("--verbose", action="store_true", help="show what the library logs")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    index = commands.add_parser("index", help="embed files into a store; a second run does only what is new")
    index.add_argument("paths", nargs="+", metavar="PATH", help="folders, globs or files")
    _store(index)
    index.add_argument("--model", help="hub id, folder or 'tiny' (default: the store's, else Qwen3-VL-Embedding-2B)")
    index.add_argument("--revision", help="branch, tag or commit of the model's repository")
    index.add_argument("--dimensions", type=int, help="cut vectors to this many values")
    index.add_argument("--segment", type=_positive, default=30.0, metavar="SECONDS", help="length of a clip's parts")
    index.add_argument("--fuse-page-text", action="store_true", help="embed a PDF page's text with its picture")
    index.add_argument("--keep", action="store_true", help="keep what was deleted or changed below the given paths")
    _machine(index)

    search = commands.add_parser("search", help="find what fits a text, a picture, or both")
    search.add_argument("query", nargs="?", default="", help="words to search by")
    _store(search)
    search.add_argument("--image", metavar="FILE", help="a picture to search by, alone or with the words")
    search.add_argument("--limit", type=int, default=10, help="hits to show (default 10)")
    search.add_argument(
        "--kind", action="append", choices=("picture", "page", "clip", "text"), help="only hits of this kind"
    )
    search.add_argument("--rerank", action="store_true", help="let the reranker judge the nearest hits")
    search.add_argument(
        "--reranker", help="hub id, folder or 'tiny' (default: the one that goes with the store's model)"
    )
    search.add_argument("--candidates", type=int, default=20, help="hits that the reranker judges (default 20)")
    search.add_argument("--instruction", help="what the query is for, where the documents' instruction is not meant")
    search.add_argument("--model", help="the store's model under another name or folder")
    search.add_argument("--html", metavar="FILE", help="write a page with the hits' pictures")
    _machine(search)

    demo = commands.add_parser("demo", help="make a small library, index it and search it, offline")
    demo.add_argument(
        "--out", default="qwen3vl-demo", metavar="DIR", help="where it is written (default ./qwen3vl-demo)"
    )
    demo.add_argument("--json", action="store_true", help="print the result as JSON")

    doctor = commands.add_parser("doctor", help="what is installed, what will run where, and what is wrong")
    doctor.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


def _store(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--store", required=True, metavar="DIR-or-URL", help="a folder, or a server's URL")
    parser.add_argument("--collection", default="qwen3vl", help="the collection in the store (default qwen3vl)")


def _machine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps; cuda:0,cuda:1 or cuda:all")
    parser.add_argument("--dtype", default="auto", help="auto, float32, bfloat16, float16; int8 or fp8")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code."""
    options = build_parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO if options.verbose else logging.ERROR, format="%(levelname)s %(message)s")
    console = Console(stderr=options.json)
    try:
        match options.command:
            case "index":
                from qwen3vl.cli.index import run
            case "search":
                from qwen3vl.cli.search import run
            case "demo":
                from qwen3vl.cli.demo import run
            case _:
                from qwen3vl.cli.doctor import run
        return run(options, console)
    except Qwen3VLError as error:
        return _failed(options, console, str(error))
    except (ValueError, OSError) as error:
        return _failed(options, console, str(error))
    except KeyboardInterrupt:
        console.print("[yellow]stopped; what was done is kept, and the next run goes on from there[/yellow]")
        return EXIT_INTERRUPTED


def _failed(options: argparse.Namespace, console: Console, reason: str) -> int:
    if options.json:
        print_json({"error": reason})
    else:
        console.print("[red]error:[/red]", end=" ")
        console.print(reason, markup=False, highlight=False)
    return EXIT_USAGE


def print_json(value: object) -> None:
    """The result for programs, on standard output."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=2) + "\n")
