"""`python -m qwen3vl`: the command line."""

from qwen3vl.cli.process import run

if __name__ == "__main__":
    run()
