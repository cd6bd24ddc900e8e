"""How this process asks for memory: freed blocks are kept for the next step, as an accelerator's allocator does."""

from __future__ import annotations

import ctypes
import functools
import platform

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


@functools.cache  # asked for by every batch, granted once
def keep_freed_memory() -> None:
    """Ask glibc to keep freed memory for the next step, as an accelerator's allocator does; elsewhere nothing.

    By default it returns large blocks to the system, and each step pays for fresh pages again: a fifth of its time.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, 1 << 30)
        libc.mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)
