"""The store behind a server: `/v1/search`, `/v1/documents`, and the media of hits."""
