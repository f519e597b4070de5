"""Trains the tiny pair from scratch on drawn scenes; see docs/tiny.md for the recipe and its figures.

uv run python -m tools.train_tiny embedding OUT/embedding --minutes 30
uv run python -m tools.train_tiny reranker OUT/reranker --from OUT/embedding --minutes 90
uv run python -m tools.train_tiny judge OUT
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("embedding", "reranker", "judge"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--from", dest="base", type=Path, help="the embedding model to start from")
    parser.add_argument("--only", default="both", choices=("both", "embedding", "reranker"), help="what to judge")
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    seconds = options.minutes * 60
    if options.what == "embedding":
        from tools.tiny.embedding import train

        vision = min(90.0, seconds / 6)
        train(options.folder, seconds - vision, vision, options.seed, options.base)
    elif options.what == "reranker":
        from tools.tiny.reranker import train as train_reranker

        train_reranker(options.folder, options.base, seconds, options.seed)
    else:
        from tools.tiny.judge import main as judge

        judge(options.folder, options.only)


if __name__ == "__main__":
    main()
