"""The process itself: ranks, memory, console, files, version."""
