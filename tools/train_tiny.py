"""Trains the tiny pair from scratch on drawn scenes; see docs/tiny.md for the recipe and its figures.

    uv run python -m tools.train_tiny embedding OUT/first --steps 600 --vision-steps 240
    uv run python -m tools.train_tiny embedding OUT/embedding --from OUT/first --steps 600
    uv run python -m tools.train_tiny reranker OUT/reranker-first --from OUT/first --steps 800
    uv run python -m tools.train_tiny reranker OUT/reranker --from OUT/reranker-first --steps 440
    uv run python -m tools.train_tiny judge OUT [--only embedding]

A step takes 2 to 3 seconds on two CPU cores, twice that on one.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("embedding", "reranker", "judge"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument(
        "--vision-steps", type=int, default=400, help="steps on the vision tower alone, before the rest"
    )
    parser.add_argument("--from", dest="base", type=Path, help="the model to start from")
    parser.add_argument("--only", default="both", choices=("both", "embedding", "reranker"), help="what to judge")
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    if options.what == "embedding":
        from tools.tiny.embedding import train

        train(options.folder, options.steps, options.vision_steps, options.seed, options.base)
    elif options.what == "reranker":
        from tools.tiny.reranker import train as train_reranker

        train_reranker(options.folder, options.base, options.steps, options.seed)
    else:
        from tools.tiny.judge import main as judge

        judge(options.folder, options.only)


if __name__ == "__main__":
    main()
