"""Process-level services: ranks, threads, memory, console, files, options, version."""
