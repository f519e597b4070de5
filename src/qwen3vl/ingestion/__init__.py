"""Ingestion: documents into a store. Only what is new is embedded, and nothing counts as done before it is written.

A thread reads the stream of documents, a second one looks up which of them are stored, the caller's thread embeds, and
another one writes. What waits between them is bounded, so that memory does not grow with the stream.
"""

from qwen3vl.ingestion.api import aingest, ingest
from qwen3vl.ingestion.buffer import MAX_UNWRITTEN_POINTS
from qwen3vl.ingestion.report import IngestError, Report
from qwen3vl.ingestion.sync import Sync
from qwen3vl.ingestion.types import LoaderItem, StreamingEmbedder

__all__ = [
    "MAX_UNWRITTEN_POINTS",
    "IngestError",
    "LoaderItem",
    "Report",
    "StreamingEmbedder",
    "Sync",
    "aingest",
    "ingest",
]
