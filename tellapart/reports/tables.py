"""Print the result of an evaluation as tables that fit a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..evaluation import score_table
from ..runtime.console import Console

ACCURACY = "Classification accuracy"


def print_table(result: Mapping[str, Any], console: Console) -> None:
    """Print the tables of an evaluation, then its verdict.

    Args:
        result: what eval.json holds, also of several sources.
        console: where they are printed.
    """
    if console.quiet:
        return
    for table in score_table.tables(result):
        compact = table.title.startswith(ACCURACY) or len(table.heads) > 4
        heads = [_narrow(head) if compact else head for head in table.heads]
        rows = [
            [row[0], *(c.replace(" ± ", "\n±") if compact else c for c in row[1:])]
            for row in table.rows
        ]
        console.table(heads, rows, title=table.title, right=range(1, len(heads)))
        for note in table.notes:
            console.say(note)
    console.say(result["verdict"])


def _narrow(head: str) -> str:
    """A column heading on two lines, as narrow as its cells.

    >>> _narrow("knn@200"), _narrow("10 labels per class"), _narrow("20% of the labels")
    ('kNN\\nk=200', '10 per\\nclass', '20% of\\nlabels')
    """
    if head.startswith("knn@"):
        return "kNN\nchosen" if head == "knn@chosen" else f"kNN\nk={head[4:]}"
    if head.endswith("per class"):
        return f"{head.split()[0]} per\nclass"
    if head.endswith(" of the labels"):
        return f"{head.split()[0]} of\nlabels"
    return head.replace(" ", "\n", 1)
