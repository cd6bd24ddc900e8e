"""Resolve the settings of a training from a preset, single options and starting weights."""

from __future__ import annotations

import dataclasses
from typing import Any

from ..data import Progress, Source, open_source
from ..data.options import ReadOptions
from ..encoders import hub, pretrained
from ..errors import ConfigError, unknown
from ..objectives import METHODS, OPTIONS
from ..runtime import plugins
from ..views.own import registered_views
from . import presets
from .config import CommonConfig

WATCHED = 1000  # items held out for --eval-every without --validation


def resolve(
    method: str, data: str, preset: str | None, config: CommonConfig | None, options: dict[str, Any]
) -> CommonConfig:
    """Return the settings of a training.

    Single options override the preset or the configuration, and the network of the starting weights
    (`init`) overrides both.

    Args:
        method: name of the objective.
        data: as for `data.open_source`; selects the preset if none is given.
        preset: name of a preset.
        config: all settings, instead of a preset.
        options: single settings by name; those of the objective also without its prefix.

    Raises:
        ConfigError: an unknown method, preset or setting, with the nearest one.
    """
    if method not in OPTIONS:
        raise unknown("method", method, METHODS)
    base = config or presets.starting(method, data, preset, options.get("init"))
    options = with_plugins(options, base)
    settings_known, known = base.names(), {f.name for f in dataclasses.fields(base.objective)}
    unprefixed = {name: options[name] for name in options if name in known - settings_known}
    options = {name: value for name, value in options.items() if name not in unprefixed}
    for name in options:
        if name not in settings_known | {"views"}:
            raise unknown("setting", name, settings_known | known)
    inner = options.get("objective")
    if isinstance(inner, dict) or unprefixed:
        inner = unprefixed | (inner if isinstance(inner, dict) else {})
        for name in inner:
            if name not in known:
                raise unknown("setting of the objective", name, known)
        start = options.get("objective")
        start = base.objective if start is None or isinstance(start, dict) else start
        options = options | {"objective": dataclasses.replace(start, **inner)}
    clash = [name for name in ("epochs", "steps") if options.get(name) is not None]
    if clash and options.get("minutes") is not None:
        raise ConfigError(f"--minutes sets the number of steps; leave out --{clash[0]}")
    settings = dataclasses.replace(base, **options)
    if settings.init and not settings.takes_init:
        raise ConfigError(f"--init requires images; {settings.instead_of_init}")
    if settings.init:
        settings = _with_its_network(
            settings, presets.starting(method, data, preset, settings.init)
        )
    if not isinstance(settings.objective, OPTIONS[method]):
        raise ConfigError(f"these settings are of another method than {method}")
    return settings


def with_plugins(options: dict[str, Any], base: CommonConfig) -> dict[str, Any]:
    """Replace networks and views of the user in the options by their registered names.

    Args:
        options: single settings; `encoder` may be an `nn.Module` or a function that returns one,
            `views` a function, or one function for each view of an item.
        base: the settings they are applied to.

    Raises:
        ConfigError: a name that cannot be imported.
    """
    options = dict(options)
    encoder, views = options.get("encoder"), options.get("views")
    if encoder is not None and (not isinstance(encoder, str) or plugins.is_name(encoder)):
        options["encoder"] = plugins.register(encoder)
    own = getattr(base, "views", None)
    if views is not None and type(views) is not type(own):
        options["view"] = options.pop("views")
    if options.get("view") is not None:
        options["view"] = registered_views(options["view"])
    return options


def training_part(source: Source, config: CommonConfig) -> Source:
    """Return the items to train on: the training split without the held-out items.

    Args:
        source: the whole source.
        config: the settings.
    """
    return held_out(source, config)[0]


def held_out(source: Source, config: CommonConfig) -> tuple[Source, Source | None]:
    """Return the items to train on, and the items held out of the training split by hash.

    `validation` items are held out; with `eval_every` alone a tenth, at most 1,000.

    Args:
        source: the whole source.
        config: the settings.
    """
    part = source.split("train") if "train" in source.splits else source
    count = config.validation or (min(WATCHED, len(part) // 10) if config.eval_every else 0)
    if config.eval_every and count < 2:
        raise ConfigError(
            f"--eval-every holds out a tenth of the images, too few of {len(part)}; leave it out"
        )
    if count:
        return part.hold_out(count)
    return part, None


def open_for(
    data: str,
    config: CommonConfig,
    progress: Progress | None = None,
    ranges: dict[str, Any] | None = None,
) -> Source:
    """Open the source that a training of this configuration reads.

    Args:
        data: the argument of the user.
        config: the settings.
        progress: as for `open_source`.
        ranges: value ranges of images of more than 8 bits, as stored in a run.
    """
    given = {f.name for f in dataclasses.fields(ReadOptions)}
    reading = {name: getattr(config, name) for name in given if hasattr(config, name)}
    return open_source(
        data,
        image_size=getattr(config, "image_size", None),
        sample_rate=getattr(config, "sample_rate", None),
        large=_side(config),
        cache=config.cache,
        cache_limit=config.cache_limit,
        verify=config.verify,
        progress=progress,
        ranges=ranges,
        **reading,
    )


def _side(config: CommonConfig) -> int:
    """Return the side of a view in pixels for images above 64 px, without --image-size."""
    if config.encoder == "small-resnet":
        return 64
    return hub.input_of(config.encoder).size if config.init else hub.SIZE


def _with_its_network(settings: CommonConfig, default: CommonConfig) -> CommonConfig:
    """Return the settings with the network of the starting weights.

    Raises:
        ConfigError: the settings ask for another network.
    """
    brought = pretrained.describe(
        settings.init or "", None if settings.encoder == default.encoder else settings.encoder
    )
    for name, value in brought.items():
        asked = getattr(settings, name)
        if asked not in (value, getattr(default, name)):
            raise ConfigError(
                f"--init {settings.init} has its own network ({name} {value}); "
                f"leave out --{name} {asked}"
            )
    return dataclasses.replace(settings, **brought)
