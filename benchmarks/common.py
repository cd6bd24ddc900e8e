"""Shared by the benchmarks: warm up at size, alternate the contenders, report medians and ratios,
write JSON.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).resolve().parent


def alternate(
    contenders: dict[str, Callable[[], Any]], *, runs: int = 7, warmup: int = 2
) -> dict[str, list[float]]:
    """Seconds of every contender, taken in turn A B C A B C ..., after `warmup` uncounted
    rounds.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(warmup + runs):
        for name, work in contenders.items():
            began = time.perf_counter()
            work()
            if turn >= warmup:
                seconds[name].append(time.perf_counter() - began)
    return seconds


def warn_if_busy() -> None:
    """Say so where other programs run: three processes of a peer lose more by them than one of
    ours.
    """
    if os.getloadavg()[0] > 0.7:
        print(
            f"warning: load {os.getloadavg()[0]:.1f} before the start; use a quiet machine",
            file=sys.stderr,
        )


def median(values: list[float]) -> float:
    """The middle one."""
    return statistics.median(values)


def write(name: str, rows: dict[str, Any]) -> None:
    """benchmarks/NAME.json: the rows, the command and the machine."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=HERE
    )
    with open("/proc/cpuinfo") as file:
        cpu = next(line.partition(":")[2].strip() for line in file if line.startswith("model name"))
    about = {
        "command": f"python benchmarks/{name}.py",
        "commit": commit.stdout.strip(),
        "cpu": cpu,
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "load": os.getloadavg()[0],
    }
    (HERE / f"{name}.json").write_text(json.dumps(about | {"rows": rows}, indent=1) + "\n")
    print(json.dumps(rows, indent=1), file=sys.stdout)


def extra_memory(name: str, *case: str) -> int:
    """Bytes that a case of benchmark NAME adds at its peak to what it had before, in a process of
    its own.

    The process is `python benchmarks/NAME.py --memory CASE...`, which calls `report_extra`.
    """
    command = [sys.executable, str(HERE / f"{name}.py"), "--memory", *case]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1])


def report_extra(work: Callable[[], Any]) -> None:
    """Print the peak of resident memory while `work` runs, less what was resident before (Linux,
    glibc).

    It runs twice and the second time counts: what libraries set up once is not what a step needs.
    Every block above 64 kB goes back to the system when it is freed, so that the second run asks
    for all of its own again.
    """
    ctypes.CDLL(None).mallopt(-3, 1 << 16)  # M_MMAP_THRESHOLD
    work()
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = _status("VmRSS")
    work()
    print(_status("VmHWM") - before)


def _status(name: str) -> int:
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(name))
    return 1024 * int(line.split()[1])
