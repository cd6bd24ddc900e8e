"""Hook of mkdocs: fail the build when a page would fetch something from another host."""

from __future__ import annotations

import re
from typing import Any

from mkdocs.exceptions import PluginError

# Resources that a browser loads by itself; links that a person clicks are fine.
FETCHED = re.compile(r"<(?:script|link|img|iframe|source|video)\b[^>]*(?:src|href)=\"?(https?:)?//")


def on_post_page(output: str, *, page: Any, config: Any) -> str:
    """Check a rendered page.

    Args:
        output: HTML of the page.
        page: the page, for its name in the message.
        config: configuration of the site.

    Returns:
        The same HTML.

    Raises:
        PluginError: the page loads a script, style, picture or frame from another host.
    """
    for match in FETCHED.finditer(output):
        raise PluginError(f"{page.file.src_path} loads from another host: {match.group(0)}")
    return output
