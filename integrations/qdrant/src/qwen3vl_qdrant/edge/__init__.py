"""Folders of collections in Qdrant Edge, Qdrant's engine as a library (qdrant-edge-py), and clients of such folders."""
