"""Train into a run folder: the lines, the checkpoints and the end, so that nothing is lost on `kill -9`."""

from __future__ import annotations

import dataclasses
import math
import os
import platform
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch

from ..data import Source, notes
from ..encoders import AnyEncoder
from ..encoders.norms import batchnorms, running_statistics
from ..errors import MissingExtraError, RunError
from ..objectives import MoCo
from ..runtime import distributed
from ..runtime.console import Console, clock, plural
from ..runtime.threads import ThreadChoice
from ..runtime.version import __version__
from . import diagnosis, hardware
from .config import CommonConfig, differences
from .resolve import open_for, resolve, training_part
from .run import Manifest, Run, require_new
from .trainer import NotANumber, Step, Trainer

HEARTBEAT = 10.0  # seconds
MOST_THREADS = 4096  # of a run that is continued
CHECKPOINTS = 20  # of a training, where --save-every says nothing
PATIENCE = 5  # checkpoints without a better one that `--stop auto` waits for


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or a polite kill: the state is saved."""


def manifest(method: str, config: CommonConfig, source: Source, trained: Source) -> Manifest:
    """What run.json says of a training before its first step."""
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
    """Raise RunError, naming the fields, unless a run can be continued as `wanted`."""
    found = (
        []
        if run.manifest.get("method") == wanted["method"]
        else [f"method {run.manifest.get('method')}"]
    )
    found += differences(run.manifest.get("config", {}), wanted["config"])
    if run.manifest.get("data", {}).get("fingerprint") != wanted["data"]["fingerprint"]:
        found.append(
            f"the data ({run.manifest.get('data', {}).get('name')} has other contents now)"
        )
    if found:
        raise RunError(
            f"{run.path} was trained otherwise: {'; '.join(found)}. Continue it with the same settings, "
            "or give another --out"
        )


def description(trainer: Trainer) -> dict[str, Any]:
    """How to build the encoder again: what `encoders.rebuild` takes."""
    return {"format": 1, **trainer.encoder.description}


class Opened(NamedTuple):
    """A training whose data and settings are open; nothing is written yet.

    Attributes:
        settings: as resolved.
        source: the whole source, of which the trainer sees a part.
        manifest: what run.json will hold, of a finished run what it holds.
        old: the run that is continued, None for a new one.
        trainer: at its first step or at the last checkpoint; None where the run is finished.
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
) -> Opened:
    """Resolve the settings, open the data and build the trainer; called on every rank.

    Args:
        method, data, preset, config, options: as `api.train`.
        folder: of the run.
        resume: whether to continue the run in it; torchrun's restarts imply it.
        console: where progress is printed.

    Raises:
        ConfigError, DataError: bad settings or data.
        RunError: the folder is in use, or its run was trained with other settings.
    """
    resume = resume or int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0
    old = Run.open(folder) if resume and (folder / "run.json").exists() else None
    init = options.get("init", config.init if config else None)
    if old and init and (folder / "encoder" / "config.json").exists():
        # the network stands in the run; the file that it came from may be gone
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
        if old.manifest["status"] == "finished":
            steps = plural(old.manifest["step"], "step")
            console.say(f"{folder} is finished ({steps}); nothing was changed")
            return Opened(settings, source, old.manifest, old, None)
        state = old.load()
    trainer = Trainer(method, settings, part, threads=threads_of(old) if state else None)
    if state:
        trainer.load_state(state)
        console.say(f"continuing {folder} after step {trainer.number:,} of {trainer.total:,}")
    return Opened(settings, source, wanted, old, trainer)


def threads_of(run: Run | None) -> int | None:
    """The processor threads of a run's last step, None where run.json does not tell."""
    if run is None:
        return None
    used = run.manifest.get("threads") or [run.manifest.get("hardware", {})]
    threads = used[-1].get("threads")
    return threads if isinstance(threads, int) and 1 <= threads <= MOST_THREADS else None


def begin(opened: Opened, folder: Path, console: Console) -> Run:
    """Print the plan, and make or reopen the run folder; called on every rank.

    Args:
        opened: from `start`, with a trainer.
        folder: of the run.
        console: where the plan is printed.

    Raises:
        RunError: the folder cannot be written.
    """
    trainer, written = opened.trainer, opened.manifest
    if trainer is None:
        raise RunError(f"{folder} is finished; there is nothing to begin")
    console.say(plan(trainer, trainer.seconds_per_step()))
    written |= {"hardware": hardware.hardware(trainer.machine), "steps": trainer.total}
    run = opened.old or Run.create(folder, written)
    run.cut_metrics(trainer.number)
    used = [u for u in run.manifest.get("threads", []) if u["step"] <= trainer.number]
    if not used or used[-1]["threads"] != trainer.machine.threads:
        used.append({"step": trainer.number + 1, "threads": trainer.machine.threads})
    run.update(status="running", hardware=written["hardware"], steps=trainer.total, threads=used)
    return run


class Look(NamedTuple):
    """What a checkpoint looked like: fields for its line of metrics, and what the choice goes by, larger = better."""

    row: dict[str, float]
    choice: float


class Watch(Protocol):
    """Looks at an encoder and leaves it as it is; `watching.Watch` is one."""

    @property
    def chooses_by(self) -> str:
        """The name of the measure that the choice goes by."""

    def checkpoint(self, encoder: AnyEncoder) -> Look:
        """The measures of a checkpoint."""

    def look(self, encoder: AnyEncoder) -> dict[str, float]:
        """Fields of a line of metrics."""


def train_into(
    run: Run, trainer: Trainer, console: Console, watch: Watch | None = None
) -> diagnosis.Verdict:
    """Train from where the trainer stands to its end, or to Ctrl-C; every number ends up in the run.

    Args:
        run: the run folder.
        trainer: at its first step, or at the step of the last checkpoint.
        console: where progress is printed.
        watch: measures checkpoints; None: none are measured, and the last one is kept.

    Returns:
        Whether it learned, and why not.

    Raises:
        Interrupted: Ctrl-C or SIGTERM came; the state is saved.
        NotANumber: the loss is not finite; the ids of the batch are in run.json.
    """
    return _Session(run, trainer, console, watch).train()


class _Session:
    """One stretch of training: what is measured, saved and printed, and when it ends."""

    def __init__(self, run: Run, trainer: Trainer, console: Console, watch: Watch | None) -> None:
        self.run, self.trainer, self.console, self.watch = run, trainer, console, watch
        config = trainer.config
        self.save_every = config.save_every or max(1, round(trainer.total / CHECKPOINTS))
        self.spent = float(run.manifest.get("seconds", 0.0)) if trainer.number else 0.0
        self.began = self.beat = time.monotonic()
        self.rows = run.metrics()
        self.warned = False
        self.writer = _tensorboard(run) if config.tensorboard else None
        self.enough = self._no_better(trainer.number)
        watched = config.threads is None and distributed.world() == 1
        watched = watched and trainer.machine.device == "cpu"
        self.threads = ThreadChoice(trainer.machine.threads) if watched else None
        self.stepped = self.began

    def train(self) -> diagnosis.Verdict:
        """Take the steps; see `train_into`."""
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
        """Measure a step and write its line, where one is due."""
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
        """What the watch measured at this step, on rank 0; the best checkpoint so far is kept."""
        seen: dict[str, float] = {}
        if self.watch is None or not distributed.is_main():
            return seen
        every = self.trainer.config.eval_every
        if every and step % every == 0:
            seen |= self.watch.look(self.trainer.encoder)
        if self._due(step):
            look = self.watch.checkpoint(self.trainer.encoder)
            seen |= look.row
            best = self.run.manifest.get("best")
            if math.isfinite(look.choice) and (best is None or look.choice > best["value"]):
                self.run.save_best(self.trainer.encoder, step, self.watch.chooses_by, look.choice)
        return seen

    def _save_or_stop(self, step: Step, seconds: float, stop: list[int]) -> None:
        """Save where a checkpoint is due or the process must end, on every rank alike."""
        due = self._due(step.number)
        stopping = distributed.any_rank(bool(stop))  # all or none: a save waits for every rank
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
            distributed.barrier()  # no rank leaves while another still hears from it
            raise Interrupted(f"stopped after step {step.number}; --resume goes on from there")

    def _choose_threads(self, step: int) -> None:
        """Drop to one thread where other processes have made several slower; run.json says when."""
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
        """Write the end of the run."""
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
        """Whether a checkpoint is due."""
        return step == self.trainer.total or step % self.save_every == 0

    def _no_better(self, step: int) -> bool:
        """Whether `--stop auto` ends the training: the best checkpoint is PATIENCE checkpoints old."""
        if self.trainer.config.stop != "auto":
            return False
        best = self.run.manifest.get("best")
        old = best is not None and step - int(best["step"]) >= PATIENCE * self.save_every
        return bool(distributed.share(old))

    @contextmanager
    def _failures_recorded(self) -> Iterator[None]:
        """Write into run.json why a training ended before its end."""
        try:
            yield
        except NotANumber as error:
            self.run.update(status="failed", error=str(error), bad_batch=error.ids)
            raise
        except RuntimeError as error:
            if distributed.world() > 1:  # a collective failed, for its partner is gone
                reason = f"another process ended: {str(error).splitlines()[0]}"
                self.run.update(status="interrupted", error=reason)
            raise


def save(run: Run, trainer: Trainer) -> None:
    """A checkpoint of where the trainer stands; called on every rank."""
    distributed.average(
        running_statistics(trainer.encoder, trainer.objective)
    )  # each rank kept those of its rows
    run.save(trainer.state(), trainer.encoder, description(trainer), trainer.shard())


def plan(trainer: Trainer, seconds_per_step: float) -> str:
    """What is about to happen, in words: steps, minutes, memory, and what was decided and why."""
    config, source, machine = trainer.config, trainer.source, trainer.machine
    left = trainer.total - trainer.number
    rows = sum(b.numel() * b.element_size() for b in trainer.objective.buffers())
    rows += sum(p.numel() * p.element_size() for p in trainer.objective.parameters())
    lines = [
        f"{source.name}: {source.described}",
        *_classes_and_splits(source),
        f"{left:,} steps of {trainer.batch} ({trainer.total / trainer.per_epoch:g} epochs), about "
        f"{clock(left * seconds_per_step)} at {trainer.batch / max(seconds_per_step, 1e-9):,.0f} {source.many}/s",
        f"on {machine.device} with {machine.threads} thread(s) in {machine.precision}; "
        f"memory of the objective {rows / 1e6:,.1f} MB",
    ]
    if distributed.world() > 1:
        lines.append(f"{distributed.world()} processes, {trainer.share} {source.many} each")
    if trainer.batch < config.batch_size:
        why = (
            f"there are no more {source.many}"
            if trainer.batch == len(source)
            else "every process gets as many"
        )
        lines.append(f"batch {trainer.batch} instead of {config.batch_size}: {why}")
    lines += _about_the_network(trainer)
    if config.eval_every:
        lines.append(
            f"looking every {config.eval_every} steps at training items held out by the hash of their names"
        )
    lines += [str(note["text"]) for note in source.notes]
    lines += notes.skipped_lines(source.skipped)
    if source.skipped:
        lines.append("every file that was left out is listed in run.json")
    if source.duplicates:
        lines.append(
            f"{source.duplicates} item(s) repeat another byte for byte: each is asked to differ from its copy"
        )
    busy, cores = hardware.load(), os.cpu_count() or 1
    if machine.device == "cpu" and busy and busy + machine.threads > cores + 0.5:
        lines.append(
            f"warning: {busy:.1f} other threads are busy on {cores} cores; a multi-threaded step beside them is many "
            f"times slower. Wait{', or give --threads 1' if machine.threads > 1 else ''}"
        )
    return "\n".join(lines)


def _classes_and_splits(source: Source) -> list[str]:
    """How many classes and which splits the whole source has, with their sizes."""
    lines = []
    if len(source.classes):
        lines.append(
            f"{len(source.classes):,} classes: {notes.shown([str(c) for c in source.classes])}"
        )
    if len(source.parts) > 1:
        sizes = ", ".join(f"{name} {len(rows):,}" for name, rows in source.parts.items())
        lines.append(f"splits: {sizes}")
    return lines


def _about_the_network(trainer: Trainer) -> list[str]:
    """What was decided about stem, starting weights and BatchNorm, and what to watch."""
    config, lines = trainer.config, []
    lines += trainer.encoder.notes()
    if config.init and not trainer.number:
        lines.append(
            f"starting from {config.init}: its network, stem and normalisation, a fresh head. --lr {config.lr:g} is "
            f"meant for training from nothing; trained weights usually want a tenth, --lr {config.lr / 10:g}"
        )
    norm = bool(batchnorms(trainer.encoder))
    moco = trainer.objective.options if isinstance(trainer.objective, MoCo) else None
    few = trainer.share < 2 * config.bn_rows
    if norm and config.micro_batch and config.micro_batch < trainer.share:
        if config.batchnorm == "split" and few:
            lines.append(
                f"the batch is one BatchNorm group ({trainer.share} images), so the network sees it at once; "
                f"a lower --bn-rows lets --micro-batch act"
            )
        elif config.batchnorm == "split":
            lines.append(
                f"BatchNorm normalises groups of {config.bn_rows} images, so that the gradient is exact "
                "with --micro-batch (--bn split without it gives the same)"
            )
        else:
            lines.append(
                f"warning: --bn {config.bn} takes statistics over {config.micro_batch} images, not {trainer.share}: "
                "the gradient is not that of the whole batch; --bn split makes it exact"
            )
    elif norm and config.bn == "split" and few:
        lines.append(
            f"warning: --bn split makes groups of {config.bn_rows} rows or more, and {trainer.share} are one group: "
            f"nothing is split; give {f'--bn-rows {trainer.share // 2}' if trainer.share >= 4 else 'a larger batch'}"
        )
    if norm and moco and config.batchnorm == "local" and distributed.world() == 1:
        lines.append(
            "warning: queries and keys share one BatchNorm batch, whose statistics give pairs away; give --bn split"
        )
    return lines


def _line(trainer: Trainer, step: Step, seconds: float) -> str:
    beside = f" (chance {trainer.chance:.2f})" if trainer.chance is not None else ""
    return f"loss {step.loss:.3f}{beside}  {step.number * trainer.batch / max(seconds, 1e-9):,.0f} {trainer.source.many}/s"


@contextmanager
def _polite_stop() -> Iterator[list[int]]:
    """A list that is not empty once Ctrl-C or SIGTERM came; a second Ctrl-C is not caught."""
    came: list[int] = []

    def note(number: int, _: Any) -> None:
        if came and number == signal.SIGINT:
            raise KeyboardInterrupt
        came.append(number)

    old = {}
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            old[number] = signal.signal(number, note)
    except ValueError:  # not the main thread: the caller's signals stay
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
    return SummaryWriter(str(run.path / "tensorboard"))
