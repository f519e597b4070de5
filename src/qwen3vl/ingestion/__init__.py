"""Documents into a store: only what is new is embedded, and nothing is marked done before it is written.

    documents -> ids, and which are stored already -> vectors -> points written

Loading, embedding and writing overlap; nothing between them grows with the stream.
"""

from qwen3vl.ingestion.brought import Sync
from qwen3vl.ingestion.buffer import BATCH
from qwen3vl.ingestion.calls import aingest, ingest
from qwen3vl.ingestion.report import IngestError, Report

__all__ = ["BATCH", "IngestError", "Report", "Sync", "aingest", "ingest"]
