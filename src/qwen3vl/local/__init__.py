"""Backends that run models in this process, by an engine of their own."""
