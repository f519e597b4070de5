"""Documents into a store: only what is new is embedded, and nothing is marked done before it is written.

    documents -> ids, and which are stored already -> vectors -> points written

LoaderAdapter, embedding and writing overlap; nothing between them grows with the stream.
"""

from qwen3vl.ingestion.api import aingest, ingest
from qwen3vl.ingestion.buffer import BATCH
from qwen3vl.ingestion.report import IngestError, Report
from qwen3vl.ingestion.sync import Sync

__all__ = ["BATCH", "IngestError", "Report", "Sync", "aingest", "ingest"]
