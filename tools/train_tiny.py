"""Train the tiny models from nothing on drawn scenes. docs/tiny.md has the recipe and its results.

    uv run python -m tools.train_tiny embedding OUT/first --steps 600 --vision-steps 240
    uv run python -m tools.train_tiny embedding OUT/embedding --from OUT/first --steps 600
    uv run python -m tools.train_tiny reranker OUT/reranker-first --from OUT/first --steps 800
    uv run python -m tools.train_tiny reranker OUT/reranker-images --from OUT/reranker-first --steps 440
    uv run python -m tools.train_tiny reranker OUT/reranker-clips --from OUT/reranker-images --steps 240 --mix clips
    uv run python -m tools.train_tiny reranker OUT/clips-23 --from OUT/reranker-clips --steps 280 --mix clips --seed 23
    uv run python -m tools.train_tiny reranker OUT/clips-53 --from OUT/clips-23 --steps 300 --mix clips --seed 53
    uv run python -m tools.train_tiny reranker OUT/clips-71 --from OUT/clips-53 --steps 280 --mix clips --seed 71
    uv run python -m tools.train_tiny average OUT/reranker --of OUT/clips-53 OUT/clips-71
    uv run python -m tools.train_tiny evaluate OUT [--only embedding]

A step takes 2 to 3 seconds on two CPU cores, and twice that on one; with `--mix clips` three times as long.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path


def main() -> None:
    """Run one command of this script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("embedding", "reranker", "average", "evaluate"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--vision-steps", type=int, default=400, help="steps of the vision tower alone, at the start")
    parser.add_argument("--from", dest="base", type=Path, help="the checkpoint to start from; a reranker needs one")
    parser.add_argument("--of", type=Path, nargs="+", help="the checkpoints whose weights are averaged")
    parser.add_argument("--only", default="both", choices=("both", "embedding", "reranker"), help="what to evaluate")
    parser.add_argument(
        "--mix", default="images", choices=("images", "clips"), help="what a reranker is trained on most"
    )
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    if options.command == "reranker" and options.base is None:
        parser.error("reranker needs --from: the embedding model or the reranker to start from")
    if options.command == "average" and not options.of:
        parser.error("average needs --of: the checkpoints whose weights are averaged")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    if options.command == "embedding":
        from tools.tiny.embedding import train

        train(options.folder, options.steps, options.vision_steps, options.seed, options.base)
    elif options.command == "reranker":
        from tools.tiny.reranker import train as train_reranker

        train_reranker(options.folder, options.base, options.steps, options.seed, options.mix)
    elif options.command == "average":
        from tools.tiny.checkpoint import average_checkpoints

        average_checkpoints(options.folder, options.of)
    else:
        from tools.tiny.evaluation import print_evaluation

        print_evaluation(options.folder, options.only)


if __name__ == "__main__":
    main()
