"""User plug-ins: networks, views and objectives named `module:object`.

A run stores the name, never the object, and a name that is read from a run is not imported: it must
have been passed in this process before (in Python, or as `--encoder module:object`), or its module
must be listed in the environment variable TELLAPART_PLUGINS. Opening a run therefore never executes
code that only its files name.
"""

from __future__ import annotations

import importlib
import inspect
import os
import re
import sys
from collections.abc import Callable
from typing import Any

from ..errors import ConfigError

VARIABLE = "TELLAPART_PLUGINS"  # modules, divided by commas, whose names may be used by runs
NAME = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")
_registered: dict[str, Any] = {}


def is_name(text: object) -> bool:
    """Whether this is a name `module:object`.

    Args:
        text: any value.

    >>> is_name("mymodule:make"), is_name("timm/resnet18"), is_name("C:/weights.pt")
    (True, False, False)
    """
    return isinstance(text, str) and NAME.fullmatch(text) is not None


def register(value: Any, name: str | None = None) -> str:
    """Remember an object of the user and return its name.

    Args:
        value: a name `module:object`, which is imported, or the object itself.
        name: the name to remember it by; None: its own.

    Raises:
        ConfigError: the module or the object cannot be imported.
    """
    if isinstance(value, str):
        if not is_name(value):
            raise ConfigError(f"{value!r} is not a name module:object, such as mymodule:make")
        _registered[name or value] = _imported(value)
        return name or value
    if name:
        _registered[name] = value
        return name
    named = value if hasattr(value, "__qualname__") else type(value)
    # a lambda or a local function has dots and brackets in its name
    name = re.sub(r"\W+", "_", named.__qualname__).strip("_") or "own"
    full = f"{named.__module__}:{name}"
    _registered[full] = value
    return full


def find(name: str) -> Any:
    """Return the object registered under a name.

    Args:
        name: `module:object`.

    Raises:
        ConfigError: the object was not passed in this process, and TELLAPART_PLUGINS does not list
            its module.
    """
    if name not in _registered:
        allowed = {m.strip() for m in os.environ.get(VARIABLE, "").split(",") if m.strip()}
        if name.partition(":")[0] not in allowed:
            raise ConfigError(
                f"{name} is not known here: pass it again (encoder={name!r}, or --encoder {name}), "
                f"or set {VARIABLE}={name.partition(':')[0]}"
            )
        _registered[name] = _imported(name)
    return _registered[name]


def known(name: str) -> bool:
    """Return whether `find` can return this object.

    Args:
        name: `module:object`.
    """
    try:
        find(name)
    except ConfigError:
        return False
    return True


def load_plugins() -> None:
    """Import the modules that TELLAPART_PLUGINS lists, which register their own objects."""
    for module in os.environ.get(VARIABLE, "").split(","):
        if module.strip():
            _module(module.strip())


def called(make: Callable[..., Any], given: dict[str, Any]) -> Any:
    """Call a function with the keyword arguments that it accepts.

    Args:
        make: a class or a function.
        given: all available keyword arguments.
    """
    parameters = inspect.signature(make).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return make(**given)
    names = {p.name for p in parameters}
    return make(**{name: value for name, value in given.items() if name in names})


def required(function: Callable[..., Any]) -> int:
    """Return the number of required positional arguments of a function.

    Args:
        function: any callable.
    """
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # some built-ins have no signature
        return 1
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(p.kind in kinds and p.default is p.empty for p in parameters)


def _imported(name: str) -> Any:
    module, _, path = name.partition(":")
    value: Any = _module(module)
    for part in path.split("."):
        if not hasattr(value, part):
            raise ConfigError(f"module {module} has no {path!r}")
        value = getattr(value, part)
    return value


def _module(name: str) -> Any:
    """Import a module of the user, also from the working directory, as `python -m` does."""
    here = os.getcwd()
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigError(f"module {name} cannot be imported: {error}") from error
