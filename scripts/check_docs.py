"""Check the documents: links, line lengths, versions, generated pages, docstrings, plain words.

`scripts/check` runs it. Long modules are reported as notes, everything else fails.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from objective_pages import PAGES, pages

ROOT = Path(__file__).resolve().parent.parent
COLUMNS = 100  # of a line of Markdown outside tables and links
LINES = 400  # of a module: one idea per file
BANNED = (
    " of theirs",
    "brings no",
    "What `",
    "it is right on",
    "of two times",
    "liked it",
    "would flatter",
    "where it does not tell",
)
# Files that quote the banned phrases in order to search for them.
QUOTING = {"scripts/check_docs.py"}
READ = ("*.md", "docs/**/*.md", *(f"{d}/**/*.py" for d in (
    "tellapart", "tests", "scripts", "recipes", "studies", "benchmarks",
)), "tellapart/**/*.js", "tellapart/**/*.html")  # fmt: skip


def main() -> int:
    """Print the problems; 1 if there are any."""
    problems = [
        *dead_links(),
        *long_lines(),
        *missing_version(),
        *missing_docstrings(),
        *outdated_pages(),
        *banned_phrases(),
    ]
    print("\n".join([*long_modules(), *(problems or ["documents: no problems"])]))
    return bool(problems)


def markdown() -> list[Path]:
    """Every Markdown file of the repository."""
    return sorted(page for pattern in ("*.md", "docs/**/*.md") for page in ROOT.glob(pattern))


def dead_links() -> list[str]:
    """Relative links of Markdown files whose target does not exist."""
    links = [
        (page, target)
        for page in markdown()
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8"))
    ]
    return [
        f"{page.relative_to(ROOT)}: {target} does not exist"
        for page, target in links
        if not re.match(r"[a-z]+:", target) and not (page.parent / target).exists()
    ]


def long_lines() -> list[str]:
    """Lines of Markdown longer than 100 columns; tables and lines with a link or a URL may be."""
    return [
        f"{page.relative_to(ROOT)}:{number}: {len(line)} columns (at most {COLUMNS})"
        for page in markdown()
        if page.parent != PAGES or page.name == "index.md"  # the others are generated
        for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1)
        if len(line) > COLUMNS and not line.lstrip().startswith("|") and not _has_link(line)
    ]


def _has_link(line: str) -> bool:
    return "](" in line or "://" in line


def outdated_pages() -> list[str]:
    """Pages of methods that differ from what the docstrings say."""
    return [
        f"docs/objectives/{method}.md is out of date: run python scripts/objective_pages.py"
        for method, text in pages().items()
        if not (page := PAGES / f"{method}.md").exists() or page.read_text(encoding="utf-8") != text
    ]


def missing_version() -> list[str]:
    """The version of the package, if the changelog has no section for it."""
    text = (ROOT / "tellapart/runtime/version.py").read_text(encoding="utf-8")
    version = re.search(r'__version__ = "([^"]+)"', text)
    assert version
    sections = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    known = f"## {version.group(1)}" in sections
    return [] if known else [f"CHANGELOG.md has no section for version {version.group(1)}"]


def missing_docstrings() -> list[str]:
    """Public functions and classes of the package without a docstring."""
    return [
        f"{file.relative_to(ROOT)}: {node.name} has no docstring"
        for file in sorted(ROOT.glob("tellapart/**/*.py"))
        for node in ast.parse(file.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
        and not ast.get_docstring(node)
        and not any(getattr(d, "id", "") == "overload" for d in node.decorator_list)
    ]


def long_modules() -> list[str]:
    """Notes on modules of more than 400 lines: perhaps two ideas in one file."""
    counts = {
        file: file.read_text(encoding="utf-8").count("\n")
        for file in sorted(ROOT.glob("tellapart/**/*.py"))
    }
    return [
        f"note: {file.relative_to(ROOT)} has {count} lines"
        for file, count in counts.items()
        if count > LINES
    ]


def banned_phrases() -> list[str]:
    """Phrases of the old style, anywhere a person reads."""
    return [
        f"{name}:{number}: plain English instead of {phrase!r}"
        for name, text in _texts()
        for number, line in enumerate(text.splitlines(), 1)
        for phrase in BANNED
        if phrase in line
    ]


def _texts() -> Iterator[tuple[str, str]]:
    for pattern in READ:
        for file in sorted(ROOT.glob(pattern)):
            name = file.relative_to(ROOT).as_posix()
            if name not in QUOTING and "__pycache__" not in name:
                yield name, file.read_text(encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
