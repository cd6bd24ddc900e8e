"""How many processor threads to use, and what they do while they wait; free of torch.

A second busy process beside a multi-threaded step makes it collapse, not halve: the threads of a
step wait for each other at every operation, and a thread whose core is taken holds up all of them.
"""

from __future__ import annotations

import os
import statistics
import time

WINDOW = 20  # steps between two looks
SLOWER = 1.6  # times the fastest window: another process has come
TRIAL = 6  # steps with one thread before it is decided; the first of them is not counted


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def others_busy(looks: int = 5, pause: float = 0.01) -> float:
    """Threads of other processes that are running or waiting for a core, right now.

    Args:
        looks: how often the system is asked; the median counts.
        pause: seconds between two looks.

    Returns:
        0 where the system does not tell.
    """
    seen = []
    for _ in range(looks):
        try:
            with open("/proc/loadavg") as file:
                running = int(file.read().split()[3].partition("/")[0])
        except (OSError, ValueError, IndexError):
            return 0.0
        seen.append(max(0, running - 1))  # this process is one of them
        time.sleep(pause)
    return float(statistics.median(seen))


def free(most: int | None = None, *, busy: float | None = None) -> int:
    """Threads that have a core of their own, at least 1.

    Args:
        most: an upper limit; None: the cores.
        busy: threads of other processes; None: looked up.

    >>> free(4, busy=0) == min(4, cores()), free(4, busy=1000)
    (True, 1)
    """
    taken = others_busy() if busy is None else busy
    return max(1, min(most or cores(), cores() - round(taken)))


def wait_without_spinning() -> None:
    """Let waiting threads sleep where the machine is busy; to be called before torch is loaded.

    By default the threads of OpenMP spin at a barrier, on a core that another process needs. Where
    the machine is quiet nothing is changed: sleeping costs 4 to 8 % there. A policy that the user
    has set stays.
    """
    if free() < cores():
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


class ThreadChoice:
    """Drops a training to one thread when other processes have made several slower than one.

    Args:
        threads: of the first step.
    """

    def __init__(self, threads: int) -> None:
        self.threads = self.several = threads
        self.window: list[float] = []
        self.fastest: float | None = None
        self.slow: float | None = None  # seconds of a step with several threads, during a trial
        self.wait = self.waited = 0  # windows without a trial, doubled by each that was in vain

    def after(self, seconds: float) -> int:
        """Threads of the next step.

        Args:
            seconds: what the last step took.
        """
        if self.threads == 1 and self.slow is None:
            return 1
        self.window.append(seconds)
        if self.slow is not None and len(self.window) == TRIAL:
            self._decide(statistics.median(self.window[1:]))
        elif self.slow is None and len(self.window) == WINDOW:
            self._look(statistics.median(self.window))
        return self.threads

    def _look(self, now: float) -> None:
        """Begin a trial with one thread where the last window was slow."""
        self.window = []
        self.fastest = now if self.fastest is None else min(self.fastest, now)
        self.waited += 1
        if now > SLOWER * self.fastest and self.waited > self.wait:
            self.slow, self.threads = now, 1

    def _decide(self, now: float) -> None:
        """End a trial: one thread to the end where it was faster, else several as before."""
        if self.slow is not None and now >= self.slow:
            self.threads, self.wait, self.waited = self.several, 2 * self.wait + 1, 0
        self.window, self.slow = [], None
