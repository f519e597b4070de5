"""Forms in which other frameworks keep documents in a vector store."""
