"""The terminal, the report, the model card and eval.json agree cell by cell."""

import json
import re
from html import unescape

import pytest

import tellapart as ta
from tellapart import api
from tellapart.evaluation import score_table
from tellapart.exporters.card import score_lines
from tellapart.reports import tables
from tellapart.runtime.console import Console
from tellapart.training.model_card import training_state

QUIET = Console(quiet=True)


def score(value, note=""):
    return {"value": value, "low": value - 0.02, "high": value + 0.02, "note": note}


# rows of one evaluation whose columns differ in order and in number
UNEVEN = [
    {
        "centred pixels": {"knn@200": score(0.579), "knn@chosen": score(0.58, "k = 200")},
        "trained features": {"knn@chosen": score(0.64, "k = 20"), "knn@200": score(0.53)},
    },
    {
        "a": {
            "linear": score(0.1),
            "10 labels per class": score(0.2),
            "4 labels per class": score(0.3),
        },
        "b": {"4 labels per class": score(0.4), "linear": score(0.5)},
        "c": {"20% of the labels": score(0.6), "1 label per class": score(0.7)},
    },
    {"a": {"knn@5": score(0.11, "k is large")}, "b": {"knn@1": score(0.22), "knn@57": score(0.33)}},
]


def expected(scores):
    """(row, column) -> the number that every table must show there."""
    return {
        (row, column): f"{100 * cell['value']:.1f}"
        for row, cells in scores.items()
        for column, cell in cells.items()
    }


def of_markdown(lines):
    """(row, column) -> number, of the first table."""
    start = next(i for i, line in enumerate(lines) if line.startswith("|"))
    grid = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        grid.append([cell.strip() for cell in line.strip("|").split("|")])
    return numbers(grid[0], grid[2:])


def of_html(page):
    table = next(t for t in re.findall(r"<table.*?</table>", page, re.S) if "±" in t)
    grid = [
        [
            unescape(re.sub(r"<[^>]*>", "", cell)).strip()
            for cell in re.findall(r"<t[hd].*?</t[hd]>", row, re.S)
        ]
        for row in re.findall(r"<tr.*?</tr>", table, re.S)
    ]
    return numbers(grid[0], grid[1:])


def numbers(heads, rows):
    return {
        (row[0], head): re.match(r"[\d.]+", cell).group()
        for row in rows
        for head, cell in zip(heads[1:], row[1:], strict=True)
        if cell != score_table.ABSENT
    }


class Recorder(Console):
    """Keeps the tables that it is told to print."""

    def __init__(self):
        super().__init__()
        self.grids = []

    def table(self, heads, rows, **_):
        self.grids.append((list(heads), [list(row) for row in rows]))


def of_terminal(result, console):
    tables.print_table(result, console)
    table = next(t for t in score_table.tables(result) if t.title.startswith(tables.ACCURACY))
    heads, rows = console.grids[0]
    assert heads == [tables._narrow(head) for head in table.heads]  # the same columns, narrower
    return numbers(table.heads, [[cell.replace("\n±", " ± ") for cell in row] for row in rows])


@pytest.mark.parametrize("scores", UNEVEN)
def test_rows_with_other_columns_stay_under_their_headings(scores):
    result = {"verdict": "", "protocol": "eval-v1", "scores": scores, "comparisons": []}
    wanted = expected(scores)
    assert of_markdown(score_lines(result)) == wanted
    assert of_terminal(result, Recorder()) == wanted


def test_card_report_terminal_and_json_agree(tmp_path):
    run = tmp_path / "run"
    ta.train("instdisc", data="digits", out=run, steps=30, threads=1, console=QUIET)
    terminal = Recorder()
    result = ta.evaluate(run, console=terminal)
    api.export(run, out=tmp_path / "encoder", console=QUIET)
    api.report(run, out=tmp_path / "r.html", console=QUIET)
    stored = json.loads((run / "eval.json").read_text())
    wanted = expected(stored["scores"])
    card = (tmp_path / "encoder" / "README.md").read_text()
    assert of_markdown(card.splitlines()) == wanted
    assert of_html((tmp_path / "r.html").read_text()) == wanted
    assert of_terminal(result, terminal) == wanted  # what evaluate printed
    assert stored["verdict"] in card
    assert "not finish" not in stored["verdict"]


@pytest.mark.parametrize("status", ["interrupted", "failed", "running"])
def test_a_training_that_did_not_finish_is_said_everywhere(tmp_path, status):
    run = tmp_path / "run"
    ta.train("instdisc", data="digits", out=run, steps=6, threads=1, console=QUIET)
    manifest = json.loads((run / "run.json").read_text())
    assert manifest["steps"] == 6
    (run / "run.json").write_text(json.dumps(manifest | {"status": status, "steps": 656}))
    verdict = ta.evaluate(run, console=QUIET)["verdict"]
    api.export(run, out=tmp_path / "encoder", console=QUIET)
    said = api.report(run, out=tmp_path / "r.html", console=QUIET)["verdict"]
    for words in (verdict, said, (tmp_path / "encoder" / "README.md").read_text()):
        assert "step 6 of 656" in words
    assert training_state(manifest) == ""
