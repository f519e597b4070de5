"""Loads files as documents, one at a time: memory grows only by a digest for each file."""

from qwen3vl.loaders.folder import Loader
from qwen3vl.loaders.outcomes import Skipped

__all__ = ["Loader", "Skipped"]
