"""Threads and futures of this package: pools that survive a fork, an executor for event loops, and `call_when_done`."""
