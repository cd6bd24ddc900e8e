"""From what a person asks for to a method, data and settings.

Each comes from the arguments, else from a file of settings, else from a default: the method that is
recommended for the data, and the preset of both.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from ..data.kinds import Data, given
from ..errors import ConfigError, require
from ..objectives import METHODS, OPTIONS
from ..runtime import plugins
from . import presets
from .config import CommonConfig, setting_names
from .config_file import ConfigFile, base, checked, read

LENGTH = ("epochs", "steps")  # settings that minutes stand for


@dataclass(frozen=True)
class Request:
    """A training that a person asked for.

    Attributes:
        method: name of the method.
        data: the data, with their options behind them.
        preset: name of the preset to start from, None for the one of method and data.
        config: all settings, None for those of the preset.
        options: single settings that change these; flags stand above a file.
        why: a line on the choice of the method, "" if it was named.
    """

    method: str
    data: str
    preset: str | None
    config: CommonConfig | None
    options: dict[str, Any]
    why: str


def of(
    method: str | None,
    data: Data | None,
    *,
    config: CommonConfig | str | Path | None = None,
    preset: str | None = None,
    columns: Any = None,
    fps: float | None = None,
    options: dict[str, Any] | None = None,
    resumed: Path | None = None,
) -> Request:
    """Return what to train.

    Args:
        method: name of the method, None if none was named.
        data: the data, None if none were named.
        config: all settings, or a file of settings.
        preset: name of the preset.
        columns: as for `data.kinds.given`.
        fps: as for `data.kinds.given`.
        options: single settings.
        resumed: folder whose run is continued.

    Raises:
        ConfigError: no data, or an invalid file of settings.
    """
    options = dict(options or {})
    file = read(config) if isinstance(config, str | Path) else None
    known = None if file is None else file.data
    require(data is not None or known is not None, "--data must name what to train on")
    where = given(data if data is not None else known, columns, fps)
    why = ""
    if method is None:
        method, why = method_of(where, file, preset=preset, config=config, resumed=resumed)
    if file is not None:
        preset = preset or file.preset
        init = options.get("init", file.settings.get("init"))
        own = base(file, method, where, init)
        first = own or presets.starting(method, where, preset, init)
        held = checked(file, first)
        _no_unknown_plugins(held, options)
        _name_the_file(file, held, _above(held, options, first), first)
        options = _above(held, options, first)
        return Request(method, where, None if own else preset, own, options, why)
    whole: Any = config
    require(
        whole is None or hasattr(whole, "objective"),
        f"config is a file of settings or a TrainConfig, not a {type(whole).__name__}",
    )
    return Request(method, where, preset, whole, options, why)


def method_of(
    data: str,
    file: ConfigFile | None,
    *,
    preset: str | None = None,
    config: Any = None,
    resumed: Path | None = None,
) -> tuple[str, str]:
    """Return the method of a training that names none, and a line on the choice.

    Args:
        data: what to train on.
        file: a file of settings.
        preset: name of a preset, whose method is meant.
        config: settings, whose method is meant.
        resumed: folder whose run is continued.

    Returns:
        The method, and "" or why it is recommended for the data.

    Raises:
        RunError: the run that is continued is damaged.
    """
    if resumed is not None:
        from .run import Run  # imports torch, which the options of a new training do without

        if Run.exists(resumed):
            return _known(Run.open(resumed).manifest["method"]), ""
    if file is not None and file.method is not None:
        return _known(file.method), ""
    objective = getattr(config, "objective", None)
    for name, kind in OPTIONS.items():
        if objective is not None and type(objective) is kind:
            return name, ""
    if preset is not None:
        presets.named(preset)  # an unknown one is an error
        name = preset.partition("_")[0]
        if name in METHODS:
            return name, ""
    return presets.recommendation(data)


def _known(name: str) -> str:
    """Return the method that a file names; code that only a file names is not imported."""
    if plugins.is_name(name):
        plugins.find(name)
    return name


def _above(lower: dict[str, Any], upper: dict[str, Any], start: CommonConfig) -> dict[str, Any]:
    """Return settings of a file with those of flags or arguments on top."""
    inner = {f.name for f in fields(start.objective)} - start.names()
    above = {name: value for name, value in upper.items() if name not in inner}
    nested = {name: value for name, value in upper.items() if name in inner}
    if above.get("minutes") is not None:
        lower = {name: value for name, value in lower.items() if name not in LENGTH}
    elif any(above.get(name) is not None for name in LENGTH):
        lower = {name: value for name, value in lower.items() if name != "minutes"}
    options = above.pop("objective", {})
    if is_dataclass(above.get("views")) and not isinstance(above["views"], type):
        hidden = setting_names(type(above["views"]))
        lower = {name: value for name, value in lower.items() if name not in hidden}
    if not isinstance(options, dict):  # options of the method as a whole replace the file's
        return {**lower, **above, "objective": options}
    objective = {**lower["objective"], **nested, **options}
    rest = {name: value for name, value in lower.items() if name != "objective"}
    return {**rest, **above, **({"objective": objective} if objective else {})}


def _no_unknown_plugins(held: dict[str, Any], flags: dict[str, Any]) -> None:
    """Refuse code that a file alone names: it is imported only if a flag names it too.

    Raises:
        ConfigError: the code is not known in this process; the message holds the remedy.
    """
    for name in ("encoder", "view"):
        value = held.get(name)
        if isinstance(value, str) and flags.get(name) is None:
            for part in value.split(","):
                if plugins.is_name(part):
                    plugins.find(part)


def _name_the_file(
    file: ConfigFile, held: dict[str, Any], options: dict[str, Any], start: CommonConfig
) -> None:
    """Raise the error of a value that the file brings with the name of the file.

    Raises:
        ConfigError: the file alone causes the same error as file and flags together.
    """
    error = _invalid(start, options)
    if error and error == _invalid(start, held):
        raise ConfigError(f"{file.path}: {error}")


def _invalid(start: CommonConfig, options: dict[str, Any]) -> str:
    """Return why single settings are invalid, "" if they are not."""
    flat = {name: value for name, value in options.items() if name not in ("objective", "views")}
    own = options.get("objective")
    try:
        if isinstance(own, dict):
            flat["objective"] = replace(start.objective, **own)
        replace(start, **flat)
    except ConfigError as error:
        return str(error)
    except TypeError:  # an unknown name, which `resolve` reports
        pass
    return ""
