"""Files to documents, one at a time: nothing here grows with the folder."""

from qwen3vl.loaders.folder import Loader, Skipped

__all__ = ["Loader", "Skipped"]
