"""Number of CPU threads and their waiting policy; does not import torch.

A second busy process slows a multi-threaded step down by far more than half: the threads of a step
wait for each other at every operation, so that one thread without a core delays all of them.
"""

from __future__ import annotations

import os
import statistics
import time

WINDOW = 20  # steps between two checks
SLOWER = 1.6  # ratio to the fastest window that indicates another busy process
TRIAL = 6  # steps with one thread before the decision; the first is not counted


def cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def others_busy(looks: int = 5, pause: float = 0.01) -> float:
    """Return the number of threads of other processes that run or wait for a core now.

    Args:
        looks: number of samples, of which the median is taken.
        pause: seconds between two samples.

    Returns:
        The number of threads; 0 if the system does not report it.
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
    """Return the number of threads that have a free core, at least 1.

    Args:
        most: upper limit; None: the number of cores.
        busy: threads of other processes; None: measured.

    >>> free(4, busy=0) == min(4, cores()), free(4, busy=1000)
    (True, 1)
    """
    taken = others_busy() if busy is None else busy
    return max(1, min(most or cores(), cores() - round(taken)))


def wait_without_spinning() -> None:
    """Let waiting threads sleep on a busy machine; must be called before torch is loaded.

    By default OpenMP threads spin at a barrier, on a core that another process may need. On an idle
    machine nothing is changed, because sleeping costs 4 to 8 % there. A policy set by the user is
    kept.
    """
    if free() < cores():
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


class ThreadChoice:
    """Changes a training to one thread if several are slower beside other processes.

    Args:
        threads: number of threads of the first step.
    """

    def __init__(self, threads: int) -> None:
        self.threads = self.several = threads
        self.window: list[float] = []
        self.fastest: float | None = None
        self.slow: float | None = None  # seconds of a step with several threads, during a trial
        self.wait = self.waited = 0  # windows before the next trial; doubled after each failed one

    def after(self, seconds: float) -> int:
        """Return the number of threads for the next step.

        Args:
            seconds: duration of the last step.
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
        """Begin a trial with one thread if the last window was slow."""
        self.window = []
        self.fastest = now if self.fastest is None else min(self.fastest, now)
        self.waited += 1
        if now > SLOWER * self.fastest and self.waited > self.wait:
            self.slow, self.threads = now, 1

    def _decide(self, now: float) -> None:
        """End a trial: keep one thread if it was faster, otherwise restore the number."""
        if self.slow is not None and now >= self.slow:
            self.threads, self.wait, self.waited = self.several, 2 * self.wait + 1, 0
        self.window, self.slow = [], None
