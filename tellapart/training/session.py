"""Train into a run folder; a killed run can resume from its last checkpoint."""

from __future__ import annotations

import dataclasses
import math
import os
import platform
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch

from ..data import Source
from ..encoders import AnyEncoder
from ..encoders.norms import running_statistics
from ..errors import MissingExtraError, RunError
from ..runtime import distributed
from ..runtime.console import Console, plural
from ..runtime.threads import ThreadChoice
from ..runtime.version import __version__
from . import diagnosis, hardware
from .config import CommonConfig, differences
from .plan import plan as plan
from .resolve import open_for, resolve, training_part
from .run import STATISTICS, Manifest, Run, require_new
from .trainer import NotANumber, Step, Trainer

HEARTBEAT = 10.0  # seconds
MOST_THREADS = 4096  # upper limit for the value in a resumed run
CHECKPOINTS = 20  # per training, without --save-every
PATIENCE = 5  # checkpoints without improvement before `--stop auto` stops


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM: the state is saved."""


def manifest(method: str, config: CommonConfig, source: Source, trained: Source) -> Manifest:
    """Return the contents of run.json before the first step.

    Args:
        method: name of the objective.
        config: the settings.
        source: the whole source.
        trained: the part of it that is trained on.
    """
    return {
        "method": method,
        "config": config.to_dict(),
        "data": {
            "name": source.name,
            "items": len(source),
            "trained_on": len(trained),
            "splits": {name: len(rows) for name, rows in source.splits.items()},
            "kind": source.kind,
            **source.about,
            "fingerprint": source.fingerprint,
            "duplicates": source.duplicates,
            "licence": source.licence,
            "labels_used": config.objective.uses_labels,
        },
        "skipped": [dict(s) for s in source.skipped],
        "notes": [dict(n) for n in source.notes],
        "versions": {
            "tellapart": __version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "seed": config.seed,
    }


def check_same(run: Run, wanted: Manifest) -> None:
    """Raise RunError, naming the fields, unless a run can be continued as `wanted`.

    Args:
        run: the run to continue.
        wanted: contents of run.json for the current settings and data.
    """
    differing = (
        []
        if run.manifest.get("method") == wanted["method"]
        else [f"method {run.manifest.get('method')}"]
    )
    differing += differences(run.manifest.get("config", {}), wanted["config"])
    if run.manifest.get("data", {}).get("fingerprint") != wanted["data"]["fingerprint"]:
        differing.append(
            f"the data ({run.manifest.get('data', {}).get('name')} has other contents now)"
        )
    if differing:
        raise RunError(
            f"{run.path} was trained with other settings: {'; '.join(differing)}. Continue it "
            "with the same settings, or give another --out"
        )


def description(trainer: Trainer) -> dict[str, Any]:
    """Return the description of the encoder for `encoders.rebuild`.

    Args:
        trainer: the trainer.
    """
    return {"format": 1, **trainer.encoder.description}


class Opened(NamedTuple):
    """A training whose data and settings are open; nothing is written yet.

    Attributes:
        settings: the resolved settings.
        source: the whole source, including items that are not trained on.
        manifest: contents of run.json.
        old: the run that is resumed, None for a new one.
        trainer: at its first step or the last checkpoint; None if the run is finished.
    """

    settings: CommonConfig
    source: Source
    manifest: Manifest
    old: Run | None
    trainer: Trainer | None


def start(
    method: str,
    data: str,
    folder: Path,
    *,
    resume: bool,
    preset: str | None,
    config: CommonConfig | None,
    options: dict[str, Any],
    console: Console,
    held: ExitStack,
) -> Opened:
    """Resolve the settings, open the data and build the trainer; called on every rank.

    Args:
        method: as for `api.train`.
        data: as for `api.train`.
        folder: the run folder.
        resume: whether to resume the run in it; restarts by torchrun imply it.
        preset: as for `api.train`.
        config: as for `api.train`.
        options: as for `api.train`.
        console: where progress is printed.
        held: stack that keeps the lock of a resumed run.

    Raises:
        ConfigError: invalid settings.
        DataError: invalid data.
        RunError: the folder is in use, or its run was trained with other settings.
    """
    resume = resume or int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0
    old = None
    if resume and Run.exists(folder):
        old = held.enter_context(Run.open(folder, for_training=True))
    init = options.get("init", config.init if config else None)
    if old and init and old.has_encoder():
        # use the network stored in the run, as the original file may be gone
        options = options | {"init": str(folder)}
    settings = resolve(method, data, preset, config, options)
    if old is None and distributed.is_main():
        require_new(folder)
    with distributed.main_first():
        source = open_for(data, settings, console.progress)
    distributed.require_same("data", source.fingerprint)
    part = training_part(source, settings)
    asked = dataclasses.replace(settings, init=init or settings.init)
    wanted = manifest(method, asked, source, part)
    state = None
    if old:
        check_same(old, wanted)
        if old.manifest["status"] == "finished" and old.encoder_is_intact():
            steps = plural(old.step, "step")
            console.say(f"{folder} is finished ({steps}); nothing was changed")
            return Opened(settings, source, old.manifest, old, None)
        state = old.load()
    trainer = Trainer(method, settings, part, threads=threads_of(old) if state else None)
    if settings.minutes:
        planned = old.manifest.get("steps") if old else None
        trainer.total = planned or trainer.steps_in(settings.minutes)
    if state:
        trainer.load_state(state)
        console.say(f"continuing {folder} after step {trainer.number:,} of {trainer.total:,}")
    return Opened(settings, source, wanted, old, trainer)


def threads_of(run: Run | None) -> int | None:
    """Return the CPU threads of the last step of a run, None if not recorded.

    Args:
        run: the run, or None.
    """
    if run is None:
        return None
    used = run.manifest.get("threads") or [run.manifest.get("hardware") or {}]
    threads = used[-1].get("threads")
    return threads if isinstance(threads, int) and 1 <= threads <= MOST_THREADS else None


def begin(opened: Opened, folder: Path, console: Console, held: ExitStack) -> Run:
    """Print the plan, and create or reopen the run folder; called on every rank.

    Args:
        opened: result of `start`, with a trainer.
        folder: the run folder.
        console: where the plan is printed.
        held: stack that keeps the lock of a new run.

    Raises:
        RunError: the folder cannot be written.
    """
    trainer, written = opened.trainer, opened.manifest
    if trainer is None:
        raise RunError(f"{folder} is finished; nothing to train")
    console.say(plan(trainer, trainer.seconds_per_step()))
    written |= {"hardware": hardware.hardware(trainer.machine), "steps": trainer.total}
    run = opened.old or held.enter_context(Run.create(folder, written))
    run.cut_metrics(trainer.number)
    used = [u for u in run.manifest.get("threads", []) if u["step"] <= trainer.number]
    if not used or used[-1]["threads"] != trainer.machine.threads:
        used.append({"step": trainer.number + 1, "threads": trainer.machine.threads})
    run.update(status="running", hardware=written["hardware"], steps=trainer.total, threads=used)
    return run


class Look(NamedTuple):
    """Measurements of a checkpoint.

    Attributes:
        row: fields for metrics.jsonl.
        choice: the criterion for the best checkpoint; larger is better.
    """

    row: dict[str, float]
    choice: float


class Watch(Protocol):
    """Measures an encoder without changing it, such as `evaluation.monitor.Watch`."""

    @property
    def chooses_by(self) -> str:
        """The name of the criterion for the best checkpoint."""

    def checkpoint(self, encoder: AnyEncoder) -> Look:
        """Measure a checkpoint."""

    def look(self, encoder: AnyEncoder) -> dict[str, float]:
        """Return fields for metrics.jsonl."""


def train_into(
    run: Run, trainer: Trainer, console: Console, watch: Watch | None = None
) -> diagnosis.Verdict:
    """Train from the current step to the end or to Ctrl-C, and write the run.

    Args:
        run: the run folder.
        trainer: at its first step, or at the step of the last checkpoint.
        console: where progress is printed.
        watch: measures checkpoints; None: nothing is measured, and the last one is kept.

    Returns:
        The verdict: whether the encoder learned, otherwise the cause.

    Raises:
        Interrupted: by Ctrl-C or SIGTERM; the state is saved.
        NotANumber: the loss is not finite; the ids of the batch are in run.json.
    """
    return _Session(run, trainer, console, watch).train()


class _Session:
    """One call of `train_into`: measures, saves, prints and decides when to stop."""

    def __init__(self, run: Run, trainer: Trainer, console: Console, watch: Watch | None) -> None:
        self.run, self.trainer, self.console, self.watch = run, trainer, console, watch
        config = trainer.config
        self.save_every = config.save_every or max(1, round(trainer.total / CHECKPOINTS))
        self.spent = float(run.manifest.get("seconds", 0.0)) if trainer.number else 0.0
        self.began = self.beat = time.monotonic()
        if trainer.number:  # the previous process may have stopped between last.pt and encoder/
            with averaged_statistics(trainer):
                run.restore(trainer.number, trainer.result, description(trainer))
        self.rows = run.metrics()
        self.warned = False
        self.writer = _tensorboard(run) if config.tensorboard else None
        self.enough = self._no_better(trainer.number)
        watched = config.threads is None and distributed.world() == 1
        watched = watched and trainer.machine.device == "cpu"
        self.threads = ThreadChoice(trainer.machine.threads) if watched else None
        self.stepped = self.began

    def train(self) -> diagnosis.Verdict:
        """Run the steps; see `train_into`."""
        what, total = f"training {self.run.manifest['method']}", self.trainer.total
        progress = self.console.track(what, total, done=self.trainer.number)
        with _polite_stop() as stop, self._failures_recorded(), progress as advance:
            for step in () if self.enough else self.trainer:
                seconds = self.spent + time.monotonic() - self.began
                self._after(step, seconds)
                advance(step.number, _line(self.trainer, step, seconds))
                self._save_or_stop(step, seconds, stop)
                if self.enough:
                    break
                self._choose_threads(step.number)
        return self._finish()

    def _after(self, step: Step, seconds: float) -> None:
        """Measure a step and write its metrics, if due."""
        seen = self._looked(step.number)
        last = step.number == self.trainer.total
        if step.number % self.trainer.config.log_every and not last and not seen:
            return
        row = self.trainer.measure(step) | seen | {"seconds": round(seconds, 2)}
        row["items_per_second"] = round(step.number * self.trainer.batch / max(seconds, 1e-9), 1)
        self.run.append(row)
        self.rows.append(row)
        if not self.warned and (verdict := diagnosis.judge(self.rows)).kind == "collapsed":
            self.warned = True
            self.console.say(f"step {step.number}: {verdict.sentence}")
        if self.writer:
            for name in row.keys() - {"step"}:
                self.writer.add_scalar(name, row[name], step.number)

    def _looked(self, step: int) -> dict[str, float]:
        """Return the measurements of this step on rank 0, and keep the best checkpoint so far."""
        every = self.trainer.config.eval_every
        looks = bool(every and step % every == 0)
        with averaged_statistics(self.trainer) if looks or self._due(step) else nullcontext():
            return self._measured(step, looks)

    def _measured(self, step: int, looks: bool) -> dict[str, float]:
        """Do the work of `_looked`, with BatchNorm statistics averaged over ranks."""
        seen: dict[str, float] = {}
        if self.watch is None or not distributed.is_main():
            return seen
        if looks:
            seen |= self.watch.look(self.trainer.result)
        if self._due(step):
            look = self.watch.checkpoint(self.trainer.result)
            seen |= look.row
            best = self.run.manifest.get("best")
            if math.isfinite(look.choice) and (best is None or look.choice > best["value"]):
                self.run.save_best(self.trainer.result, step, self.watch.chooses_by, look.choice)
        return seen

    def _save_or_stop(self, step: Step, seconds: float, stop: list[int]) -> None:
        """Save if a checkpoint is due or the process must stop, on all ranks alike."""
        due = self._due(step.number)
        stopping = distributed.any_rank(bool(stop))  # same on all ranks, as saving waits for each
        self.enough = due and self._no_better(step.number)
        if stopping or due:
            save(self.run, self.trainer)
            memory = hardware.peak_memory(self.trainer.machine.torch_device)
            self.run.update(seconds=round(seconds, 1), step=step.number, peak_memory=memory)
        elif time.monotonic() - self.beat > HEARTBEAT:
            self.beat = time.monotonic()
            self.run.update(step=step.number)
        if stopping and not self.enough and step.number < self.trainer.total:
            self.run.update(status="interrupted")
            distributed.barrier()  # no rank exits while another still communicates with it
            raise Interrupted(f"stopped after step {step.number}; --resume goes on from there")

    def _choose_threads(self, step: int) -> None:
        """Change to one thread if several are slower beside other processes; noted in run.json."""
        now = time.monotonic()
        taken, self.stepped = now - self.stepped, now
        if self.threads is None:
            return
        threads = self.threads.after(taken)
        if threads != self.trainer.machine.threads:
            self.trainer.use_threads(threads)
            used = [*self.run.manifest.get("threads", []), {"step": step + 1, "threads": threads}]
            self.run.update(threads=used)

    def _finish(self) -> diagnosis.Verdict:
        """Write the final status and the verdict."""
        verdict = diagnosis.judge(self.rows)
        self.run.update(
            seconds=self.run.manifest.get("seconds", 0.0),
            step=self.trainer.number,
            status="finished",
            verdict={"kind": verdict.kind, "sentence": verdict.sentence},
        )
        if self.enough:
            self.console.say(
                f"stopped at step {self.trainer.number:,} of {self.trainer.total:,}: no checkpoint "
                "was better than the best one so far"
            )
        return verdict

    def _due(self, step: int) -> bool:
        """Return whether a checkpoint is due."""
        return step == self.trainer.total or step % self.save_every == 0

    def _no_better(self, step: int) -> bool:
        """Return whether `--stop auto` stops: no improvement over PATIENCE checkpoints."""
        if self.trainer.config.stop != "auto":
            return False
        best = self.run.manifest.get("best")
        old = best is not None and step - int(best["step"]) >= PATIENCE * self.save_every
        return bool(distributed.share(old))

    @contextmanager
    def _failures_recorded(self) -> Iterator[None]:
        """Record in run.json why a training stopped early."""
        try:
            yield
        except NotANumber as error:
            self.run.update(status="failed", error=str(error), bad_batch=error.ids)
            raise
        except RunError as error:  # mostly a full disk; the scratch file is removed by now
            with suppress(RunError):
                self.run.update(status="failed", error=str(error))
            raise
        except RuntimeError as error:
            if distributed.world() > 1:  # a collective failed because another rank ended
                reason = f"another process ended: {str(error).splitlines()[0]}"
                self.run.update(status="interrupted", error=reason)
            raise


def save(run: Run, trainer: Trainer) -> None:
    """Write a checkpoint of the current step; called on every rank.

    BatchNorm statistics are averaged over ranks for the files. Each rank continues with its own
    statistics, which are in its shard, so that saving does not change the training.

    Args:
        run: the run.
        trainer: the trainer.
    """
    own = trainer.shard()
    if distributed.world() > 1:
        own |= {
            f"{STATISTICS}{i}": t.clone()
            for i, t in enumerate(running_statistics(trainer.encoder, trainer.objective))
        }
    with averaged_statistics(trainer):
        run.save(trainer.state(), trainer.result, description(trainer), own)


@contextmanager
def averaged_statistics(trainer: Trainer) -> Iterator[None]:
    """Average the BatchNorm statistics over ranks inside the block, and restore them after.

    Args:
        trainer: the trainer.
    """
    statistics = running_statistics(trainer.encoder, trainer.objective)
    own = [t.clone() for t in statistics] if distributed.world() > 1 else []
    distributed.average(statistics)
    try:
        yield
    finally:
        for statistic, value in zip(statistics, own, strict=bool(own)):
            statistic.copy_(value)


def _line(trainer: Trainer, step: Step, seconds: float) -> str:
    """Return the text of the progress bar: loss, chance level and speed."""
    chance = f" (chance {trainer.chance:.2f})" if trainer.chance is not None else ""
    rate = step.number * trainer.batch / max(seconds, 1e-9)
    return f"loss {step.loss:.3f}{chance}  {rate:,.0f} {trainer.source.many}/s"


@contextmanager
def _polite_stop() -> Iterator[list[int]]:
    """Yield a list that Ctrl-C and SIGTERM append to; a second Ctrl-C interrupts."""
    came: list[int] = []

    def note(number: int, _: Any) -> None:
        if came and number == signal.SIGINT:
            raise KeyboardInterrupt
        came.append(number)

    old = {}
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            old[number] = signal.signal(number, note)
    except ValueError:  # not in the main thread: signal handlers are unchanged
        pass
    try:
        yield came
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def _tensorboard(run: Run) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingExtraError("tensorboard", "track") from error
    return SummaryWriter(str(run.tensorboard_folder))
