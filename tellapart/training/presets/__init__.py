"""One function per system and scale; every number carries its source.

Sources: [paper] the paper of the method (named in its page of docs/objectives); [authors] their
released code and its README; [tuned] chosen on the validation part of the training data here, see
docs/experiments.md.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from ...data import kind_of, modality_of
from ...data.modality import BUILTIN_KINDS
from ...errors import ConfigError, unknown
from ...objectives import METHODS, OPTIONS
from ..config import TrainConfig
from .images import *  # noqa: F403  presets.simclr_scenes() and the others are public names
from .registry import PRESETS as PRESETS
from .sequences import *  # noqa: F403
from .text import *  # noqa: F403

USUAL = ("_folder", "_audio", "_text")  # kinds of data whose defaults the help shows


def named(name: str) -> Any:
    """Return the preset of that name.

    Args:
        name: the name.

    Raises:
        ConfigError: an unknown name, with the nearest one.
    """
    if name not in PRESETS:
        raise unknown("preset", name, PRESETS)
    return PRESETS[name]()


def starting(method: str, data: str, preset: str | None = None, init: str | None = None) -> Any:
    """Return the default settings of a training.

    A method of the user starts from the settings of `simclr` (or of the default method for the
    data), with its own objective; a registered kind of data starts from its own configuration.

    Args:
        method: a name of `objectives.OPTIONS`.
        data: what it learns from.
        preset: the name of a preset; None: by method and data.
        init: starting weights; they choose the preset for adapting, METHOD_adapt, if there is one.

    Raises:
        ConfigError: an unknown preset, or a method that does not learn from this kind of data.
    """
    if preset:
        return named(preset)
    kind = kind_of(data) if data else "images"
    if init and kind == "images" and f"{method}_adapt" in PRESETS:
        return named(f"{method}_adapt")
    if method in METHODS and kind in BUILTIN_KINDS:  # these have presets, which need no torch
        return named(name_for(method, data))
    modality = modality_of(kind)
    if method in METHODS:
        settings = modality.starting_settings(method)
        return settings if settings is not None else named(name_for(method, data))
    for like in ("simclr", modality.default_method):
        if like in METHODS and any(name.startswith(f"{like}_") for name in PRESETS):
            try:
                base = starting(like, data)
            except ConfigError:
                continue
            return dataclasses.replace(base, objective=OPTIONS[method]())
    raise ConfigError(f"{method} has no settings for {kind} ({data}); pass a config")


def named_start(method: str, data: str) -> str:
    """Where the settings of a training start, in words: a preset, or a configuration's defaults."""
    modality = modality_of(kind_of(data))
    if method in METHODS and modality.starting_settings(method) is None:
        return name_for(method, data)
    return f"the defaults of {type(starting(method, data)).__name__}"


RECOMMENDED = {  # kind of data -> method, and why in words; the figures are in docs/results.md
    "images": (
        "simclr",
        "the best without labels on scenes:fashion-mnist, 75 % k-NN accuracy (instdisc: 65 %)",
    ),
    "audio": ("cpc", "it predicts the next frames, which needs no invented distortions"),
    "series": ("cpc", "it predicts the next frames, which needs no invented distortions"),
    "text": (
        "simcse",
        "dropout makes its views; adapt a pretrained encoder, as word counts are often better than "
        "random weights",
    ),
}


def recommended(data: str) -> str:
    """Return the method to use on data if none is named.

    Args:
        data: the training data, as the user names it.

    >>> recommended("digits"), recommended("audio:calls/")
    ('simclr', 'cpc')
    """
    return recommendation(data)[0]


def recommendation(data: str) -> tuple[str, str]:
    """Return the recommended method for data, and a line that names it and the reason.

    Args:
        data: the training data, as the user names it.
    """
    kind = kind_of(data)
    if kind in RECOMMENDED:
        method, why = RECOMMENDED[kind]
    else:
        method, why = modality_of(kind).default_method, f"the default for {kind}"
    return method, f"method {method}, recommended for {kind}: {why}"


def name_for(method: str, data: str) -> str:
    """The preset that `train METHOD --data DATA` starts from.

    Args:
        method: name of the method.
        data: the training data, as the user names it.

    >>> name_for("instdisc", "scenes:fashion-mnist"), name_for("cpc", "audio:calls/")
    ('instdisc_scenes', 'cpc_audio')

    Raises:
        ConfigError: an unknown method, or one that does not learn from this kind of data.
    """
    if method not in METHODS:
        raise unknown("method", method, METHODS)
    if not data:  # for --help
        own = [name for name in PRESETS if name.partition("_")[0] == method]
        return next((name for name in own if name.endswith(USUAL)), own[0])
    kind = kind_of(data)
    if kind == "images":
        scale = data.partition(":")[0].replace("-", "_")
        wanted = [f"{method}_{s}" for s in (scale, "folder", "scenes", "images")]
    else:
        wanted = [f"{method}_{kind}"]
    for name in wanted:
        if name in PRESETS:
            return name
    able = sorted({name.partition("_")[0] for name in PRESETS if _is_for(name, kind)})
    raise ConfigError(
        f"{method} has no settings for {kind} ({data}); these methods have: {', '.join(able)}"
    )


def _is_for(name: str, kind: str) -> bool:
    """Whether a preset is for a kind of data; those of images name what is in them."""
    return name.endswith(f"_{kind}") or (kind == "images" and type(named(name)) is TrainConfig)
