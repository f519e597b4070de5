"""Qdrant's engine in this process (qdrant-edge-py): folders of collections, and a client of them."""
