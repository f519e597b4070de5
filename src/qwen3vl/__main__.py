"""Run the command line with `python -m qwen3vl`."""

import sys

from qwen3vl.cli import main

sys.exit(main())
