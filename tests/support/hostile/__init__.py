"""Files and references that attack whoever opens them; everything is built by code."""
