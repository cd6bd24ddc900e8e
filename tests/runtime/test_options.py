"""Options from signatures and docstrings: types, defaults, nesting, and errors of one sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from tellapart.errors import ConfigError
from tellapart.runtime.options import Option, Parser, add, arguments, of_function, of_record


def work(
    place: str | Path,
    names: Sequence[str],
    *,
    out: str,
    count: int = 3,
    rate: float | None = None,
    kind: Literal["a", "b"] = "a",
    pair: tuple[float, float] = (0.2, 1.0),
    many: tuple[int, ...] = (),
    quick: bool = False,
    checked: bool = True,
    console: object = None,
) -> None:
    """Do some work.

    Args:
        place: where it
            is done.
        names: of what.
        out: the result.
        count: how often.
    """


def _parsed(*words):
    parser = Parser("work", example="work here a --out x")
    add(parser, of_function(work, leave_out=("console",)))
    return parser.parse_all(words)


def test_a_signature_makes_positional_arguments_and_flags():
    options = {o.name: o for o in of_function(work, leave_out=("console",))}
    assert [name for name, o in options.items() if o.positional] == ["place", "names"]
    assert options["place"].help == "where it is done."
    assert options["count"].default == 3
    assert "console" not in options


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        (["--count", "4"], "count", 4),
        (["--count=4"], "count", 4),
        (["--rate", "0.5"], "rate", 0.5),
        (["--rate", "-1"], "rate", -1.0),
        (["--kind", "b"], "kind", "b"),
        (["--pair", "0.1", "0.9"], "pair", [0.1, 0.9]),
        (["--many", "1", "2", "3"], "many", [1, 2, 3]),
        (["--quick"], "quick", True),
        (["--no-quick"], "quick", False),
        (["--no-checked"], "checked", False),
    ],
)
def test_values_have_the_types_of_the_annotations(words, name, value):
    assert _parsed("here", "a", "b", "--out", "x", *words)[name] == value
    mixed = _parsed("here", *words, "--out", "x", "a", "b") if name != "many" else None
    assert mixed is None or mixed["names"] == ["a", "b"]


def test_only_what_was_given_comes_back():
    assert _parsed("here", "a", "--out", "x") == {"place": "here", "names": ["a"], "out": "x"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["here", "a"], "--out must be given; for example: work here a --out x"),
        (["here", "a", "--out", "x", "--cuont", "3"], "unknown option --cuont; did you mean --c"),
        (["here", "a", "--out", "x", "--zzzz"], "unknown option --zzzz; see work --help-all"),
        (["here", "a", "--cuont", "3"], "unknown option --cuont; did you mean --count?"),
        (["here", "a", "--out", "x", "--count", "three"], "--count: invalid int value: 'three'"),
        (["here", "a", "--out", "x", "--count"], "--count: expected one argument"),
        (["here", "a", "--out", "x", "--pair", "1"], "--pair: expected 2 arguments"),
        (["here", "a", "--out", "x", "--kind", "c"], "--kind: invalid choice: 'c'"),
    ],
)  # fmt: skip
def test_errors_are_one_sentence(words, message):
    with pytest.raises(ConfigError) as error:
        _parsed(*words)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@dataclass(frozen=True)
class Base:
    """A record.

    Args:
        size: of the thing, in %.
        mode: how.
    """

    size: int = 1
    mode: Literal["x", "y"] = "x"
    hidden: float = field(default=0.0, metadata={"option": False})


@dataclass(frozen=True)
class Inner(Base):
    """A record with another default and another help.

    Args:
        size: of the inner thing.
        on_edge: whether it stands on its edge.
    """

    size: int = 2
    on_edge: bool = True


def test_fields_of_a_record_are_flags_with_the_values_of_the_instance():
    options = {o.name: o for o in of_record(Inner(size=5), prefix="inner.")}
    assert list(options) == ["inner.size", "inner.mode", "inner.on_edge"]
    assert options["inner.size"].default == 5
    assert options["inner.size"].help == "of the inner thing."
    assert options["inner.mode"].help == "how."  # inherited
    parser = Parser("x")
    add(parser, options.values())
    assert parser.parse_all(["--inner.no-on-edge", "--inner.size", "3"]) == {
        "inner.on_edge": False,
        "inner.size": 3,
    }
    assert parser.parse_all(["--inner.no_on_edge"]) == {"inner.on_edge": False}


def test_an_alias_is_a_second_flag():
    parser = Parser("x")
    add(parser, [Option("inner.size", int, 1, "", alias="size")])
    for flag in ("--size", "--inner.size"):
        assert parser.parse_all([flag, "3"]) == {"inner.size": 3}


def test_the_help_shows_percent_signs_defaults_and_only_what_is_asked_for():
    parser = Parser("x")
    add(parser, of_record(Base()), shown=("size",))
    text = parser.format_help()
    assert "of the thing, in %. [1]" in text
    assert "--mode" not in text
    assert parser.parse_all(["--mode", "y"]) == {"mode": "y"}  # hidden, and still there


@pytest.mark.parametrize("text", [None, "", "No section.", "Args:\n\nReturns:\n    a: not one."])
def test_a_docstring_without_arguments_has_none(text):
    assert arguments(text) == {}
