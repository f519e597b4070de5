"""Threads of this package: an executor for event loops, and thread owners that survive a fork."""
