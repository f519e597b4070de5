"""Threads and futures of this package: pools that survive a fork, an executor for event loops, and `when_all`."""
