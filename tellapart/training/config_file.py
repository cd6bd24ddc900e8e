"""Settings of a training in a file: YAML as `train --print-config` writes it, or a run.json.

A file of YAML is flat, with the options of the method below `objective`:

    method: simclr
    data: photos/
    epochs: 100
    objective:
      temperature: 0.2

Relative paths in it are those of the working directory, as on the command line.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import yaml

from ..data import modality_of, specs
from ..data.kinds import PYTHON, kind_of
from ..errors import ConfigError, unknown
from ..objectives import OPTIONS
from ..runtime import schemas
from .config import CommonConfig, setting_names

ABOUT_DATA = ("columns", "fps")
OWN = ("method", "data", "preset", *ABOUT_DATA)
LARGEST = 10_000_000  # bytes; a file of settings has a few thousand


@dataclass(frozen=True)
class ConfigFile:
    """Settings that a file holds.

    Attributes:
        path: the file.
        method: name of the method, None if the file names none.
        data: the data, with columns and frame rate behind them; None if the file names none.
        preset: preset that the settings start from, None for the default one.
        settings: single settings by name; those of the method are below "objective".
        of_run: whether it is the run.json of a run, which holds every setting.
    """

    path: Path
    method: str | None
    data: str | None
    preset: str | None
    settings: dict[str, Any]
    of_run: bool


class _Loader(yaml.SafeLoader):  # type: ignore[misc]  # untyped there
    """YAML with numbers such as 1e-3, which PyYAML takes for a string, and without double keys."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        names = [self.construct_object(key, deep=True) for key, _ in node.value]
        for i, name in enumerate(names):
            if name in names[:i]:
                raise yaml.YAMLError(f"{name!r} is given twice")
        made: dict[Any, Any] = super().construct_mapping(node, deep)
        return made


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    [*"-+.0123456789"],
)


def read(path: str | Path) -> ConfigFile:
    """Read a file of settings; their names and types are checked by `checked`.

    Args:
        path: a file of YAML or JSON, a run.json, or a run folder.

    Raises:
        ConfigError: it cannot be read, or is no mapping of settings.
    """
    path = Path(path)
    path = path / "run.json" if path.is_dir() else path
    try:
        raw = path.read_bytes()[: LARGEST + 1]
        if len(raw) > LARGEST:
            raise ConfigError(f"{path} is larger than {LARGEST // 10**6} MB; settings are smaller")
        text = raw.decode("utf-8")
        values = json.loads(text) if path.suffix == ".json" else yaml.load(text, _Loader)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}; give --config FILE") from error
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        if isinstance(error, ConfigError):
            raise
        reason = " ".join(str(error).split())[: schemas.LONGEST]
        raise ConfigError(f"{path} is not YAML or JSON: {reason}") from error
    if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
        raise ConfigError(f"{path} holds no settings: lines such as `epochs: 100` are needed")
    if isinstance(values.get("config"), dict) and "data" in values:
        return _of_run(path, values)
    own = {name: values.pop(name, None) for name in OWN}
    columns = own["columns"]
    for name, value in own.items():
        wanted: Any = str | None
        if name in ABOUT_DATA:
            wanted = float | None if name == "fps" else str | dict[str, str] | None
        schemas.check(value, wanted, path, at=name, error=ConfigError)
    data = own["data"]
    if data is None and any(own[name] is not None for name in ABOUT_DATA):
        raise ConfigError(f"{path}: columns and fps belong to data, which the file does not name")
    if data is not None:
        data = specs.with_options(data, {**specs.columns_of(columns), specs.FPS: own["fps"]})
    return ConfigFile(path, own["method"], data, own["preset"], values, of_run=False)


def _of_run(path: Path, manifest: dict[str, Any]) -> ConfigFile:
    schemas.check(manifest.get("method"), str, path, at="method", error=ConfigError)
    data = manifest["data"].get("name") if isinstance(manifest["data"], dict) else None
    schemas.check(data, str, path, at="data.name", error=ConfigError)
    known = None if str(data).startswith(PYTHON) else data  # an array of another process
    return ConfigFile(path, manifest["method"], known, None, manifest["config"], of_run=True)


def base(file: ConfigFile, method: str, data: str, init: str | None) -> CommonConfig | None:
    """Return the settings that those of a file change, None for the preset of method and data.

    Args:
        file: the file.
        method: the method to train.
        data: the data to train on.
        init: starting weights.
    """
    if not file.of_run or method != file.method:
        return None
    kind = modality_of(kind_of(data)).configuration
    made: CommonConfig = kind(objective=OPTIONS[method]())
    return made


def checked(file: ConfigFile, start: CommonConfig) -> dict[str, Any]:
    """Return the settings of a file as `resolve` takes them.

    Args:
        file: the file.
        start: settings of the same method and kind of data, for names and types.

    Raises:
        ConfigError: an unknown setting or one of another type, with file and field.
    """
    views = getattr(start, "views", None)
    own: set[str] = start.names() - {"objective"}
    inner = setting_names(type(start.objective))
    nested = file.settings.get("objective") or {}
    schemas.check(nested, dict[str, Any], file.path, at="objective", error=ConfigError)
    found: dict[str, Any] = {"objective": {}}
    given = without_clash(file.settings) if file.of_run else file.settings
    for name, value in given.items():
        if name == "objective":
            continue
        if name in own:
            hints = {**_hints(start), **(_hints(views) if views is not None else {})}
            found[name] = _converted(value, hints.get(name, Any), file, name)
        elif name in inner:
            found["objective"][name] = _converted(
                value, _hints(start.objective).get(name, Any), file, name
            )
        else:
            raise _unknown(file, name, own | inner | {*OWN})
    for name, value in nested.items():
        if name not in inner:
            raise _unknown(file, f"objective.{name}", {f"objective.{n}" for n in inner})
        hint = _hints(start.objective).get(name, Any)
        found["objective"][name] = _converted(value, hint, file, f"objective.{name}")
    return found


def _hints(record: Any) -> dict[str, Any]:
    return schemas.hints(type(record))


def _converted(value: Any, hint: Any, file: ConfigFile, at: str) -> Any:
    schemas.check(value, hint, file.path, at=at, error=ConfigError)
    return value if isinstance(value, int | float) else msgspec.convert(value, hint, strict=True)


def _unknown(file: ConfigFile, name: str, known: set[str]) -> ConfigError:
    return ConfigError(f"{file.path}: {unknown('setting', name, known)}")


def text(method: str, data: str, settings: CommonConfig) -> str:
    """Return settings as YAML that `read` reads back to the same settings.

    Args:
        method: the method.
        data: the data, with their options behind them.
        settings: the resolved settings.
    """
    values = {"method": method, "data": data, **without_clash(settings.to_dict())}
    options = values.pop("objective")
    written: dict[str, Any] = {**_plain(values), "objective": _plain(options)}
    made: str = yaml.safe_dump(
        written, sort_keys=False, allow_unicode=True, width=100, default_flow_style=None
    )
    return f"# tellapart train --config FILE --out RUN\n{made}"


def without_clash(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings without epochs and steps where minutes stand for them.

    Args:
        values: settings by name.
    """
    shown = values.get("minutes") is None
    return {n: v for n, v in values.items() if shown or n not in ("epochs", "steps")}


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return {n: list(v) if isinstance(v, tuple) else v for n, v in values.items()}
