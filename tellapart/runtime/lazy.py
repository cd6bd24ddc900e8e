"""Lazy imports of package attributes, so that `--help` does not load torch."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Collection, Mapping
from typing import Any


def attributes(
    package: str, names: Mapping[str, Collection[str]], modules: Collection[str] = ()
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return `__getattr__` and `__dir__` (PEP 562) of a package that imports modules on use.

    Args:
        package: name of the package, its `__name__`.
        names: module of the package -> the public names that it defines.
        modules: modules that are public names themselves; a value may be dotted.

    Returns:
        The two functions, to be assigned in the package's `__init__`.
    """
    home = {name: module for module, given in names.items() for name in given}
    whole = {module.rpartition(".")[2]: module for module in modules}

    def get(name: str) -> Any:
        if name in home:
            value = getattr(importlib.import_module(f".{home[name]}", package), name)
        elif name in whole:
            value = importlib.import_module(f".{whole[name]}", package)
        else:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        setattr(sys.modules[package], name, value)
        return value

    def listing() -> list[str]:
        return sorted({*vars(sys.modules[package]), *home, *whole})

    return get, listing
