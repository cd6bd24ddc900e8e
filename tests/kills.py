"""Kill a training before each of its writes, resume it, and compare with an undisturbed one.

python tests/kills.py FOLDER prints one line of JSON: how many writes there are, and what differed.
Every training runs in a forked process, so that torch is loaded once.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import torch

from tellapart import api
from tellapart.runtime import files
from tellapart.runtime.console import Console
from tellapart.training import run as runs
from tellapart.training.trainer import Trainer

OPTIONS = {
    "data": "digits", "steps": 2, "save_every": 1, "log_every": 1, "batch_size": 64, "dim": 8,
    "width": 8, "threads": 1, "console": Console(quiet=True),
}  # fmt: skip
TIMES = ("heartbeat", "seconds", "peak_memory", "metrics", "items_per_second")


def train(folder: Path, kill_at: int) -> int:
    """Train in a child that is killed before its write number `kill_at`; how many it reached."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reader)
            _count_writes(kill_at, writer)
            api.train("instdisc", out=folder, resume=True, **OPTIONS)
            os._exit(0)
        except BaseException as error:
            print(repr(error), file=sys.stderr)
            os._exit(1)
    os.close(writer)
    with open(reader, "rb") as pipe:
        reached = len(pipe.read())
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code == (-signal.SIGKILL if kill_at and reached == kill_at else 0), code
    return reached


def _count_writes(kill_at: int, writer: int) -> None:
    """Report each write through a pipe, and end this process before number `kill_at`."""
    count = 0

    def before(real):
        def write(*arguments, **options):
            nonlocal count
            count += 1
            os.write(writer, b".")
            if count == kill_at:
                if real is append:  # in the middle of a line
                    with open(arguments[0], "ab") as file:
                        file.write(arguments[1].encode()[:20])
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **options)

        return write

    append = files.append
    files.append = before(append)
    os.replace = before(os.replace)
    Path.unlink = before(Path.unlink)


def snapshot(folder: Path) -> dict[str, object]:
    """The files of a run by name; what tells the time is left out."""
    found: dict[str, object] = {}
    for file in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = file.relative_to(folder).as_posix()
        raw = file.read_bytes()
        if file.suffix in (".json", ".jsonl") and "encoder" not in name:
            parts = raw.splitlines() if file.suffix == ".jsonl" else [raw]
            found[name] = [
                {k: v for k, v in json.loads(part).items() if k not in TIMES} for part in parts
            ]
        else:
            found[name] = raw
    return found


def _import_all() -> None:
    """Load here what every child would load again."""
    from tellapart.data import open_source
    from tellapart.evaluation import monitor

    open_source("digits")
    assert monitor.Watch
    torch.use_deterministic_algorithms(True)
    torch.use_deterministic_algorithms(False)


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    Trainer.seconds_per_step = lambda self, limit=3.0: 0.1  # type: ignore[method-assign]
    runs.KEPT = 1  # old encoders are removed, too
    _import_all()
    writes = train(folder / "whole", 0)
    wanted = snapshot(folder / "whole")
    faults = {}
    for number in range(1, writes + 1):
        place = folder / str(number)
        train(place, number)
        train(place, 0)
        found = snapshot(place)
        other = sorted(n for n in wanted.keys() | found.keys() if wanted.get(n) != found.get(n))
        if other:
            faults[number] = other
    print(json.dumps({"writes": writes, "files": sorted(wanted), "faults": faults}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
