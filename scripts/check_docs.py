"""The documents are true: links resolve, the version is in the changelog, every module stays small and says its use."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

from objective_pages import PAGES, pages

ROOT = Path(__file__).resolve().parent.parent
LONGEST = 400  # lines of a module: one idea a room


def main() -> int:
    """Print what is wrong; 1 if anything is."""
    problems = [*_links(), *_version(), *_modules(), *_pages()]
    print("\n".join(problems) or "documents and modules: all well")
    return bool(problems)


def _links() -> list[str]:
    """Relative links of Markdown files that lead nowhere."""
    pages = [page for pattern in ("*.md", "docs/**/*.md") for page in ROOT.glob(pattern)]
    links = [
        (page, target)
        for page in pages
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text())
    ]
    return [
        f"{page.relative_to(ROOT)}: {target} does not exist"
        for page, target in links
        if not re.match(r"[a-z]+:", target) and not (page.parent / target).exists()
    ]


def _pages() -> list[str]:
    """Pages of objectives that differ from what the docstrings say."""
    return [
        f"docs/objectives/{method}.md is not up to date: python scripts/objective_pages.py"
        for method, text in pages().items()
        if not (PAGES / f"{method}.md").exists() or (PAGES / f"{method}.md").read_text() != text
    ]


def _version() -> list[str]:
    version = re.search(
        r'__version__ = "([^"]+)"', (ROOT / "tellapart/runtime/version.py").read_text()
    )
    assert version
    known = f"## {version.group(1)}" in (ROOT / "CHANGELOG.md").read_text()
    return [] if known else [f"CHANGELOG.md has no section for version {version.group(1)}"]


def _modules() -> list[str]:
    found = []
    for file in ROOT.glob("tellapart/**/*.py"):
        text = file.read_text()
        name = file.relative_to(ROOT)
        if text.count("\n") > LONGEST:
            found.append(f"{name} has more than {LONGEST} lines")
        tree = ast.parse(text)
        public = [
            n
            for n in tree.body
            if isinstance(n, ast.FunctionDef | ast.ClassDef) and not n.name.startswith("_")
        ]
        found += [f"{name}: {n.name} has no docstring" for n in public if not ast.get_docstring(n)]
    return found


if __name__ == "__main__":
    sys.exit(main())
