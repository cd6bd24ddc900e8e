"""Who embeds the shards of a manifest: this process, several processes, an array job, or Ray.

All of them run the same `Worker`, and each shard is written once, so that another courier can go on
where one was killed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from typing import Any

import torch

from ..data.manifest import Manifest
from ..data.notes import counted
from ..encoders import AnyEncoder
from ..errors import ConfigError, DataError, IncompleteError, require
from ..runtime import files
from ..runtime.console import Console
from ..runtime.extras import optional
from ..runtime.locks import Lock
from ..training import loading
from . import shards
from .shard_worker import TRIES, Job, Worker, job_of, make_plan
from .shards import Checked, Done, Plan, Precision
from .store import Store

AHEAD = 2  # shards in flight for each worker: one in work, one read ahead
RAY = "ray"


@dataclass(frozen=True)
class Embedded:
    """The result of embedding a manifest.

    Attributes:
        out: the folder.
        plan: of the folder.
        vectors: vectors that this call wrote.
        errors: items of these shards that could not be used.
        done: shards that this call wrote.
        there: shards that were there before.
    """

    out: str
    plan: Plan
    vectors: int
    errors: int
    done: int
    there: int


def embed_manifest(
    subject: Any,
    data: str,
    out: str,
    *,
    output: str = "features",
    precision: Precision = "float32",
    shard_size: int | None = None,
    workers: str = "1",
    worker: str | None = None,
    image_size: int | None = None,
    console: Console,
    **given: Any,
) -> Embedded:
    """Embed a manifest into a folder of shards; shards that are there are kept.

    Args:
        subject: the encoder, as `loading.open_subject` takes it.
        data: path or url of the manifest.
        out: path or url of the folder.
        output: "features" or "embedding".
        precision: of the stored vectors.
        shard_size: rows of a shard; by default 4,096.
        workers: number of processes, or "ray".
        worker: "3/64": embed the shards of this element of an array job alone.
        image_size: side of a view in pixels.
        console: where progress is printed.
        given: checkpoint, encoder and width, as for `loading.open_subject`.

    Raises:
        DataError: the manifest is damaged, or `out` has another plan or another driver.
        IncompleteError: shards could not be written after three tries.
    """
    mine = part_of(worker)
    number = count_of(workers)
    require(worker is None or workers == "1", "--worker I/N and --workers exclude each other")
    store = Store(out)
    with Manifest(data) as opened, _only_driver(store, worker):
        before = shards.read_plan(store)
        subject_of = loading.open_subject(subject, **given)
        plan, encoder = make_plan(
            subject_of, opened, output=output, precision=precision,
            shard_size=shards.SIZE if shard_size is None else shard_size,
            image_size=image_size, before=before,
        )  # fmt: skip
        plan = shards.begin(store, plan)
        work, wrong = shards.to_do(store, plan, of=mine)
        for text in wrong:
            console.say(f"{text}: it is written again")
        if opened.unused:
            columns = ", ".join(opened.unused)
            console.say(f"columns of {data} that are not used: {columns}")
        there = len(range(mine[0], plan.shards, mine[1])) - len(work)
        failed: list[Done] = []
        totals = [0, 0, 0]
        with console.track("embedding", len(work) * plan.shard_size) as advance:
            for done in _run(subject, given, data, out, plan, work, number, encoder):
                if done.failure:
                    failed.append(done)
                    console.say(f"{shards.part_name(done.shard)} failed: {done.failure}")
                    continue
                totals = [totals[0] + 1, totals[1] + done.rows, totals[2] + done.errors]
                advance(min(totals[0], len(work)) * plan.shard_size, "images")
        if worker is None or failed:
            shards.write_failed(store, failed)
    if failed:
        raise IncompleteError(
            f"{counted(len(failed), 'shard')} of {plan.shards:,} could not be written after "
            f"{TRIES} tries, listed in {store}/{shards.FAILED}; the first: {failed[0].failure}. "
            "The same command tries them again"
        )
    return Embedded(str(store), plan, totals[1], totals[2], totals[0], there)


def check_folder(data: str, out: str, console: Console) -> Checked:
    """Compare a folder of shards with its manifest, and print what is wrong.

    Args:
        data: path or url of the manifest.
        out: path or url of the folder.
        console: where it is printed.

    Raises:
        DataError: the folder has no plan, or is of another manifest.
    """
    store = Store(out)
    plan = shards.read_plan(store)
    if plan is None:
        raise DataError(f"{out} holds no shards: {shards.PLAN} is missing")
    with Manifest(data) as opened:
        if plan.manifest != opened.fingerprint:
            raise DataError(f"{out} was embedded from another manifest than {data}")
        found = shards.check(store, plan, opened)
    for problem in found.problems:
        console.say(problem)
    console.say(
        f"{found.rows:,} rows, {counted(found.vectors, 'vector')}, "
        f"{counted(found.errors, 'item')} that could not be used, one encoder"
    )
    return found


def count_of(workers: str | int) -> int | str:
    """The number of worker processes, or "ray".

    Args:
        workers: as on the command line.

    Raises:
        ConfigError: neither.
    """
    text = str(workers)
    if text == RAY:
        return RAY
    if not text.isdecimal() or not 1 <= int(text) <= 1024:
        raise ConfigError(f"--workers must be a number in 1..1024, or ray, got {text}")
    return int(text)


def part_of(worker: str | None) -> tuple[int, int]:
    """The number of this worker and the number of workers of an array job.

    Args:
        worker: "3/64", the fourth of 64; None: this worker is alone.

    Raises:
        ConfigError: another form, or out of range.

    >>> part_of("3/64"), part_of(None)
    ((3, 64), (0, 1))
    """
    if worker is None:
        return 0, 1
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", worker)
    if not found or not int(found[1]) < int(found[2]):
        raise ConfigError(f"--worker must be I/N with I in 0..N - 1, such as 3/64, got {worker}")
    return int(found[1]), int(found[2])


@contextlib.contextmanager
def _only_driver(store: Store, worker: str | None) -> Iterator[None]:
    """Hold the lock of a folder on a disk, so that two drivers do not do the same work.

    Raises:
        DataError: another process holds it.
    """
    if store.path is None:  # a conditional put lets the first of two win
        yield
        return
    with files.words(store.path, DataError):
        files.make_folder(store.path)
        name = f".driver-{worker.replace('/', '-of-')}" if worker else ".driver"
        lock = Lock(store.path / name)
        if not lock.acquire():
            raise DataError(
                f"{store} is being written by {lock.holder()}; wait for it, or share the work: "
                "--worker 0/2 and --worker 1/2"
            )
    try:
        if worker is None:
            files.remove_scratch(store.path)
        yield
    finally:
        lock.release()


def _run(
    subject: Any, given: dict[str, Any], data: str, out: str, plan: Plan, work: list[int],
    number: int | str, encoder: AnyEncoder,
) -> Iterator[Done]:  # fmt: skip
    """Embed shards with the courier that was asked for."""
    if not work:
        return
    if number == 1:
        job = Job("", "last", None, 0, data, out, plan, torch.get_num_threads())
        yield from run_here(job, work, encoder)
        return
    job = job_of(subject, given, data, out, plan)
    del encoder
    if number == RAY:
        yield from run_ray(job, work)
    else:
        yield from run_processes(job, work, min(int(number), len(work)))


def run_here(job: Job, work: Sequence[int], encoder: AnyEncoder | None = None) -> Iterator[Done]:
    """Embed shards in this process.

    Args:
        job: the job.
        work: numbers of the shards.
        encoder: of the job; None: it is opened.
    """
    worker = Worker(job, encoder)
    try:
        for shard, then in zip(work, [*work[1:], None], strict=True):
            yield worker.try_shard(shard, then)
    finally:
        worker.close()


# processes ---------------------------------------------------------------------------------------


class _Process:
    """A worker process, and the shards that it was given."""

    def __init__(self, job: Job, index: int) -> None:
        self.shards: deque[int] = deque()
        self.pipe, other = Pipe()
        # A program of its own, because multiprocessing would run the user's script again.
        code = (
            f"import sys; sys.path[:] = {sys.path!r}; "
            f"from tellapart.embeddings import couriers; couriers.serve({other.fileno()})"
        )
        self.process = subprocess.Popen([sys.executable, "-c", code], pass_fds=[other.fileno()])
        other.close()
        with contextlib.suppress(OSError):  # it has died, which `wait` tells
            self.pipe.send((job, index))

    def give(self, shard: int) -> None:
        """Give it one more shard."""
        self.shards.append(shard)
        with contextlib.suppress(OSError):  # as above
            self.pipe.send(shard)

    def stop(self) -> None:
        """End it: at once if it works, by the end of its pipe otherwise."""
        self.pipe.close()
        if self.shards:
            self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def serve(descriptor: int) -> None:
    """The life of a worker process: shards come, results go; it ends with its driver.

    Args:
        descriptor: of the pipe to the driver, which first sends a job.
    """
    pipe = Connection(descriptor)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver stops its workers
    waiting: deque[int] = deque()
    with contextlib.suppress(EOFError, OSError):  # the driver has ended
        job, index = pipe.recv()
        torch.set_num_threads(job.threads)
        try:
            worker = Worker(job, index=index)
        except Exception as error:
            pipe.send(f"{type(error).__name__}: {error}")
            return
        while True:
            while not waiting or pipe.poll():
                waiting.append(pipe.recv())
            shard = waiting.popleft()
            pipe.send(worker.try_shard(shard, waiting[0] if waiting else None))
    os._exit(0)  # threads that wait for a store do not hold it up


def run_processes(job: Job, work: Sequence[int], number: int) -> Iterator[Done]:
    """Embed shards in worker processes; the shards of one that dies go to another.

    Args:
        job: the job.
        work: numbers of the shards.
        number: of processes.

    Raises:
        DataError: a worker cannot begin.
        ConfigError: this system passes no pipes to programs.
    """
    require(os.name != "nt", "--workers N needs a POSIX system; start --worker 0/N, 1/N, ...")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    job = dataclasses.replace(job, threads=max(1, (cores or 1) // number))
    waiting, deaths = deque(work), dict.fromkeys(work, 0)
    workers = [_Process(job, i) for i in range(number)]
    left = len(work)
    try:
        while left:
            for worker in workers:
                while waiting and len(worker.shards) < AHEAD:
                    worker.give(waiting.popleft())
            ready = wait([w.pipe for w in workers])
            for index, worker in enumerate(workers):
                if worker.pipe not in ready:
                    continue
                try:
                    said = worker.pipe.recv()
                except (EOFError, OSError):
                    for done in _after_death(worker, waiting, deaths):
                        left -= 1
                        yield done
                    workers[index] = _Process(job, index)
                    continue
                if isinstance(said, str):
                    raise DataError(f"a worker cannot begin: {said}")
                worker.shards.remove(said.shard)
                left -= 1
                yield said
    finally:
        for worker in workers:
            worker.stop()


def _after_death(worker: _Process, waiting: deque[int], deaths: dict[int, int]) -> Iterator[Done]:
    """Give back the shards of a dead worker; the one in work counts as tried."""
    code = worker.process.wait()
    for place, shard in enumerate(worker.shards):
        deaths[shard] += place == 0
        if deaths[shard] < TRIES:
            waiting.append(shard)
        else:
            why = f"its worker ended {TRIES} times (exit status {code}); is there enough memory?"
            yield Done(shard, failure=why)
    worker.shards.clear()
    time.sleep(0.1)


# Ray ---------------------------------------------------------------------------------------------


class _Actor:
    """A `Worker` in the form that Ray Data calls."""

    def __init__(self, job: Job) -> None:
        torch.set_num_threads(job.threads)
        self.worker = Worker(job)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        return dataclasses.asdict(self.worker.try_shard(int(row["shard"])))


def run_ray(job: Job, work: Sequence[int]) -> Iterator[Done]:
    """Embed shards with the actors of Ray Data, one for each GPU or core of the cluster.

    Args:
        job: the job; its files must be visible to all nodes.
        work: numbers of the shards.

    Raises:
        MissingExtraError: Ray is not installed.
    """
    ray = optional("ray", "ray", "data")
    if not ray.is_initialized():
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        ray.init(
            include_dashboard=False, log_to_driver=False, logging_level="ERROR",
            runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join(_import_paths())}},
        )  # fmt: skip
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False
    resources = ray.cluster_resources()
    gpus = int(resources.get("GPU", 0))
    actors = max(1, min(gpus or int(resources.get("CPU", 1)), len(work)))
    rows = ray.data.from_items([{"shard": s} for s in work], override_num_blocks=len(work))
    results = rows.map(
        _Actor,
        fn_constructor_args=(job,),
        compute=ray.data.ActorPoolStrategy(size=actors, max_tasks_in_flight_per_actor=AHEAD),
        **({"num_gpus": 1} if gpus else {"num_cpus": 1}),
    )
    for row in results.iter_rows():
        yield Done(**row)


def _import_paths() -> list[str]:
    """Where the workers find this package: where this process found it."""
    here = str(Path(__file__).resolve().parents[2])
    return [here, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
