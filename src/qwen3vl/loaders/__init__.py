"""Loads files as documents, one at a time: memory does not grow with the number of files."""

from qwen3vl.loaders.folder import Loader
from qwen3vl.loaders.outcomes import Skipped

__all__ = ["Loader", "Skipped"]
