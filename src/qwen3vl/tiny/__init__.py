"""Two tiny models of the real architecture, trained on drawn scenes: an embedding model and a reranker."""
