"""Optional packages: imported where they are used, and named with their extra where missing."""

from __future__ import annotations

import importlib
from typing import Any

from ..errors import MissingExtraError


def optional(module: str, extra: str, *parts: str) -> Any:
    """Import and return a package of an extra.

    Args:
        module: name of the package.
        extra: the extra of tellapart that installs it.
        parts: submodules of the package that are imported too.

    Raises:
        MissingExtraError: it is not installed.

    >>> optional("no_such_package", "tables")
    Traceback (most recent call last):
        ...
    tellapart.errors.MissingExtraError: no_such_package is not installed; type: \
pip install 'tellapart[tables]'
    """
    try:
        package = importlib.import_module(module)
        for part in parts:
            importlib.import_module(f"{module}.{part}")
    except ImportError as error:
        raise MissingExtraError(module, extra) from error
    return package
