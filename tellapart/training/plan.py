"""The plan of a training as text: steps, time, memory, and automatic decisions."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..data import Source, notes
from ..encoders.norms import batchnorms
from ..encoders.vision import SMALL_IMAGE
from ..objectives import MoCo
from ..runtime import distributed
from ..runtime.console import clock, plural
from ..runtime.threads import cores, others_busy
from .trainer import Trainer

SHOWN_MEMORY = 0.1  # MB from which the memory of the objective is worth a line
ADAPTING_LR = {"adamw": 1e-3, "sgd": 0.01, "lars": 0.1}  # rates above are for random weights


def plan(trainer: Trainer, seconds_per_step: float) -> str:
    """Return the plan, one fact per line.

    Args:
        trainer: before its first step, or at a checkpoint.
        seconds_per_step: seconds, as measured by `Trainer.seconds_per_step`.
    """
    config, source = trainer.config, trainer.source
    left = trainer.total - trainer.number
    rate = trainer.batch / max(seconds_per_step, 1e-9)
    state = [*trainer.objective.buffers(), *trainer.objective.parameters()]
    memory = sum(t.numel() * t.element_size() for t in state) / 1e6
    lines = [
        f"{source.name}: {source.described}",
        *_classes_and_splits(source),
        f"{plural(left, 'step')} of {trainer.batch} {source.many}, "
        f"{_epochs(trainer.total / trainer.per_epoch)}; "
        f"about {clock(left * seconds_per_step)} at {rate:,.0f} {source.many}/s",
        *_about_the_machine(trainer),
    ]
    if memory >= SHOWN_MEMORY:
        lines.append(f"memory of the objective: {memory:,.1f} MB")
    if trainer.batch < config.batch_size:
        lines.append(_about_the_batch(trainer))
    lines += _about_the_network(trainer)
    if config.eval_every:
        lines.append(
            f"k-NN accuracy is measured every {plural(config.eval_every, 'step')} on training "
            "items held out by the hash of their names"
        )
    lines += [str(note["text"]) for note in source.notes]
    lines += notes.skipped_lines(source.skipped)
    if source.skipped:
        lines.append("every file that was left out is listed in run.json")
    if source.duplicates:
        lines.append(
            f"{plural(source.duplicates, 'exact duplicate')}: duplicates act as false negatives; "
            "tellapart inspect --apply makes a list without them"
        )
    return "\n".join(lines)


def _epochs(epochs: float) -> str:
    """Return a number of epochs, with one decimal if it is not whole.

    >>> _epochs(40), _epochs(1.73913), _epochs(1), _epochs(0.004)
    ('40 epochs', '1.7 epochs', '1 epoch', '0.004 epochs')
    """
    number = f"{epochs:,.1f}" if epochs >= 0.1 else f"{epochs:.1g}"
    number = number.removesuffix(".0")
    return f"{number} {'epoch' if number == '1' else 'epochs'}"


def _about_the_machine(trainer: Trainer) -> list[str]:
    """Device, threads, precision and processes."""
    machine, config = trainer.machine, trainer.config
    where = f"on {machine.device} with {plural(machine.threads, 'thread')} in {machine.precision}"
    lines = [where]
    if machine.device == "cpu":
        busy = round(others_busy())
        if busy and config.threads is None and machine.threads < cores():
            lines = [f"{where}, since {plural(busy, 'thread')} of other processes are running"]
        elif busy and machine.threads > 1 and busy + machine.threads > cores():
            lines.append(
                f"warning: {plural(busy, 'thread')} of other processes are running on "
                f"{plural(cores(), 'core')}, which makes a step with several threads many times "
                "slower; use --threads 1"
            )
    if distributed.world() > 1:
        lines.append(f"{distributed.world()} processes, {trainer.share} {trainer.source.many} each")
    return lines


def _about_the_batch(trainer: Trainer) -> str:
    many = trainer.source.many
    everything = trainer.batch == len(trainer.source)
    why = f"there are no more {many}" if everything else f"every process takes as many {many}"
    return f"batch of {trainer.batch} instead of {trainer.config.batch_size}: {why}"


def _classes_and_splits(source: Source) -> list[str]:
    """Return lines on the classes and the splits of the source."""
    lines = []
    if len(source.classes):
        names = notes.shown([str(c) for c in source.classes])
        lines.append(f"{plural(len(source.classes), 'class', 'classes')}: {names}")
    if len(source.parts) > 1:
        sizes = ", ".join(f"{name} {len(rows):,}" for name, rows in source.parts.items())
        lines.append(f"splits: {sizes}")
    return lines


def _about_the_network(trainer: Trainer) -> list[str]:
    """Return lines on stem, starting weights and BatchNorm, with warnings."""
    config, lines, share = trainer.config, [*trainer.encoder.notes()], trainer.share
    if config.init and not trainer.number:
        lines.append(f"starting from {config.init}: its network, stem and normalisation, new head")
        if config.lr > ADAPTING_LR[config.optimizer]:
            lines.append(
                f"--lr {config.lr:g} is for training from random weights; trained weights usually "
                f"want a tenth, --lr {config.lr / 10:g}"
            )
        lines += getattr(trainer.encoder, "start_notes", [])
    if not config.init and _is_large(trainer.source) and config.encoder == "small-resnet":
        lines.append(
            f"training from random weights at {trainer.source.about.get('image_size')} px; for "
            "photographs a pretrained network is usually far better: judge it with `tellapart eval "
            "timm/resnet18 --data ...`, adapt it with --init timm/resnet18"
        )
    if not batchnorms(trainer.encoder):
        return lines
    few = share < 2 * config.bn_rows
    if config.micro_batch and config.micro_batch < share:
        lines.append(_about_pieces(trainer, few))
    elif config.bn == "split" and few:
        remedy = f"--bn-rows {share // 2}" if share >= 4 else "a larger batch"
        lines.append(
            f"warning: --bn split makes groups of {config.bn_rows} rows or more, and {share} are "
            f"one group: nothing is split; give {remedy}"
        )
    moco = isinstance(trainer.objective, MoCo)
    if moco and config.batchnorm == "local" and distributed.world() == 1:
        lines.append(
            "warning: queries and keys share one BatchNorm batch, whose statistics give pairs "
            "away; use --bn split"
        )
    return lines


def _is_large(source: Source) -> bool:
    """Return whether the median picture of a source has a short side above 64 px.

    Packed pictures are a little larger than the view, so that this can be told from them.
    """
    if source.kind != "images":
        return False
    pixels: Any = getattr(source, "pixels")  # noqa: B009 - every source of images has them
    return float(np.median(np.minimum(pixels.height, pixels.width))) > SMALL_IMAGE


def _about_pieces(trainer: Trainer, few: bool) -> str:
    """Return the effect of --micro-batch on BatchNorm; `few`: the batch is a single group."""
    config, share = trainer.config, trainer.share
    if config.batchnorm != "split":
        return (
            f"warning: --bn {config.bn} takes statistics over {config.micro_batch} images, not "
            f"{share}: the gradient is not that of the whole batch; --bn split makes it exact"
        )
    if few:
        return (
            f"the batch is one BatchNorm group ({share} images), so the network sees it at once; a "
            "lower --bn-rows lets --micro-batch act"
        )
    return (
        f"BatchNorm normalises groups of {config.bn_rows} images, so that the gradient is exact "
        "with --micro-batch (--bn split without it gives the same)"
    )
