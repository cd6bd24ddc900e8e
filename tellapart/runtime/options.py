"""Build command-line options from signatures and docstrings.

A parameter before the `*` of a signature is positional on the command line, one after it is a flag.
Its type comes from the annotation, its line of help from the `Args:` section of the docstring, and
its default from the signature. Fields of dataclasses become flags in the same way. `argparse` does
the parsing.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import functools
import inspect
import re
import sys
import types
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn, Union, get_args, get_origin

from ..errors import ConfigError

REQUIRED = inspect.Parameter.empty


@dataclass(frozen=True)
class Option:
    """One option of a command.

    Attributes:
        name: name of the parameter; a dot selects a nested field ("objective.temperature").
        type: the resolved annotation.
        default: shown in the help; `REQUIRED` if there is none.
        help: one sentence.
        positional: whether it is positional.
        group: title of its group in the full help.
        alias: a second flag, without its dashes.
    """

    name: str
    type: Any
    default: Any
    help: str
    positional: bool = False
    group: str = "options"
    alias: str | None = None

    @property
    def flag(self) -> str:
        """The flag, `--batch-size`."""
        return "--" + self.name.replace("_", "-")

    @property
    def many(self) -> bool:
        """Whether the option takes any number of values."""
        return _taken(self, positional=self.positional).get("nargs") in ("+", "*")


def of_function(function: Callable[..., Any], leave_out: Collection[str] = ()) -> list[Option]:
    """Return the options of a function.

    Args:
        function: a function with annotations and a Google-style docstring.
        leave_out: parameters that are not options.
    """
    help = arguments(function.__doc__)
    space = vars(sys.modules[function.__module__])
    return [
        Option(
            p.name, _resolved(p.annotation, space), p.default, help.get(p.name, ""),
            positional=p.kind is p.POSITIONAL_OR_KEYWORD,
        )
        for p in inspect.signature(function).parameters.values()
        if p.name not in leave_out and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    ]  # fmt: skip


def of_record(record: Any, *, prefix: str = "", group: str = "settings") -> list[Option]:
    """Return the options of a dataclass; the defaults are the values of the instance.

    Args:
        record: an instance. A field with `option: False` in its metadata is left out.
        prefix: put before each name, with its dot.
        group: title in the full help.
    """
    options = []
    for field in dataclasses.fields(record):
        if not field.metadata.get("option", True):
            continue
        owner = next(
            c for c in type(record).__mro__ if field.name in vars(c).get("__annotations__", ())
        )
        described = (arguments(c.__doc__).get(field.name) for c in type(record).__mro__)
        options.append(
            Option(
                prefix + field.name,
                _resolved(owner.__annotations__[field.name], vars(sys.modules[owner.__module__])),
                getattr(record, field.name),
                next((text for text in described if text), ""),
                group=group,
            )
        )  # fmt: skip
    return options


@functools.cache
def arguments(docstring: str | None) -> Mapping[str, str]:
    """Return the `Args:` section of a Google-style docstring: name -> description.

    >>> arguments("Do.\\n\\nArgs:\\n    a: the first\\n        of two.\\n    b: it.\\n")
    {'a': 'the first of two.', 'b': 'it.'}
    """
    section = re.search(
        r"^( *)Args:\n((?:\1 +.*\n|\s*\n)*)", (docstring or "") + "\n", re.MULTILINE
    )
    if not section:
        return {}
    lines = inspect.cleandoc("\n" + section[2]).splitlines()
    described: dict[str, str] = {}
    name = ""
    for line in lines:
        start = re.match(r"(\w+): (.*)", line)
        if start:
            name, described[start[1]] = start[1], start[2]
        elif line.strip():
            described[name] = f"{described[name]} {line.strip()}"
    return described


def summary(docstring: str | None) -> str:
    """Return the first paragraph of a docstring on one line.

    Args:
        docstring: the docstring.
    """
    return " ".join(inspect.cleandoc(docstring or "").partition("\n\n")[0].split())


class Parser(argparse.ArgumentParser):
    """A parser that raises ConfigError with one message and a command that works."""

    def __init__(self, prog: str, *, example: str = "", description: str | None = None) -> None:
        super().__init__(
            prog=prog,
            description=description,
            add_help=False,
            allow_abbrev=False,
            formatter_class=_Help,
        )
        self.example = example
        self.needed: dict[str, str] = {}  # name -> flag of each option without a default

    def error(self, message: str) -> NoReturn:
        """Raise the error instead of printing the usage."""
        remedy = f"; for example: {self.example}" if self.example else f"; see {self.prog} --help"
        raise ConfigError(message.removeprefix("argument ") + remedy)

    def parse_all(self, words: Sequence[str]) -> dict[str, Any]:
        """Return the given options by name.

        Raises:
            ConfigError: an unknown option (with the nearest one), a missing one, or a bad value.
        """
        space, extra = self.parse_known_intermixed_args(list(words))
        self.refuse(extra)
        given = vars(space)
        missing = [flag for name, flag in self.needed.items() if name not in given]
        if missing:
            self.error(f"{' and '.join(missing)} must be given")
        return given

    def refuse_dashes(self, words: Sequence[str]) -> None:
        """Raise ConfigError for an option whose value is `--`, which argparse takes for none."""
        for word in words:
            if word.startswith("--") and word.endswith("=--"):
                self.error(f"{word[:-3]}: expected a value, got '--'")

    def refuse(self, extra: Sequence[str]) -> None:
        """Raise ConfigError for the first of the words that no option took, if there are any."""
        if not extra:
            return
        flag = extra[0].partition("=")[0]
        if flag.startswith("-"):
            raise ConfigError(self._unknown(flag))
        self.error(f"unexpected argument {extra[0]!r}")

    def _unknown(self, flag: str) -> str:
        """The message for a flag that is none: with the nearest one, or where all of them stand."""
        known = [s for action in self._actions for s in action.option_strings if "_" not in s]
        similar = difflib.get_close_matches(flag.replace("_", "-"), known, n=1, cutoff=0.6)
        hint = f"did you mean {similar[0]}?" if similar else f"see {self.prog} --help-all"
        return f"unknown option {flag}; {hint}"


class _Help(argparse.HelpFormatter):
    """Options in one column of names and one of text, as wide as the terminal."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=26)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings or action.nargs == 0:
            return super()._format_action_invocation(action)
        values = self._format_args(action, self._get_default_metavar_for_optional(action))
        return f"{', '.join(action.option_strings)} {values}"


def add(parser: Parser, options: Iterable[Option], shown: Collection[str] | None = None) -> None:
    """Add options to a parser; a namespace holds those that were given, and no others.

    Args:
        parser: the parser of a command.
        options: what it takes.
        shown: names that the help lists; None: all of them.
    """
    groups: dict[str, Any] = {}
    for option in options:
        visible = option.positional or shown is None or option.name in shown
        title = option.group if shown is None else "options"
        if title not in groups:
            groups[title] = parser.add_argument_group(title)
        group = groups[title]
        help = _help(option) if visible else argparse.SUPPRESS
        if option.positional:
            group.add_argument(
                option.name,
                help=help,
                metavar=option.name.upper(),
                **_taken(option, positional=True),
            )
            continue
        flags = [option.flag, *([f"--{option.alias}".replace("_", "-")] if option.alias else [])]
        if option.type is bool:
            _add_switch(group, option, flags, help)
            continue
        taken = {"dest": option.name, "default": argparse.SUPPRESS} | _taken(option)
        if option.default is REQUIRED:
            parser.needed[option.name] = option.flag
        group.add_argument(*flags, help=help, **taken)
        _add_underscored(group, flags, **taken)


def _add_switch(group: Any, option: Option, flags: list[str], help: str) -> None:
    """A pair of flags, --x and --no-x; the help shows the one that changes the default."""
    off = [re.sub(r"^(--(?:.*\.)?)", r"\1no-", flag) for flag in flags]
    for spelled, value in ((flags, True), (off, False)):
        shown = help if value is not option.default else argparse.SUPPRESS
        if not value and shown is not argparse.SUPPRESS:
            shown = f"turn off: {help}"
        stored = {"dest": option.name, "action": "store_const", "const": value}
        group.add_argument(*spelled, help=shown, default=argparse.SUPPRESS, **stored)
        _add_underscored(group, spelled, default=argparse.SUPPRESS, **stored)


def _add_underscored(group: Any, flags: list[str], **taken: Any) -> None:
    """The same flags spelled with underscores, which the help does not list."""
    spelled = {"--" + flag[2:].replace("-", "_") for flag in flags} - set(flags)
    if spelled:
        group.add_argument(*spelled, help=argparse.SUPPRESS, **taken)


def _taken(option: Option, *, positional: bool = False) -> dict[str, Any]:
    """How many values an option takes, and of what type."""
    kind = _without_none(option.type)
    origin, inner = get_origin(kind), get_args(kind)
    many = [k for k in (inner if origin in (Union, types.UnionType) else [kind]) if _is_many(k)]
    if many:
        values = get_args(many[0])
        fixed = get_origin(many[0]) is tuple and Ellipsis not in values
        taken = _of(values[0]) | {"nargs": len(values) if fixed else "+" if positional else "*"}
    else:
        taken = _of(kind)
        if positional and option.default is not REQUIRED:
            taken |= {"nargs": "?", "default": argparse.SUPPRESS}
    if "choices" not in taken and not positional:
        taken["metavar"] = _metavar(option, taken)
    return taken


def _of(kind: Any) -> dict[str, Any]:
    """Return the conversion function of one value."""
    if get_origin(kind) is Literal:
        return {"choices": list(get_args(kind))}
    if get_origin(kind) in (Union, types.UnionType):
        return {"type": str}
    return {"type": kind if kind in (int, float) else str}


def _metavar(option: Option, taken: dict[str, Any]) -> Any:
    text = option.name.rpartition(".")[2].upper()
    name = {int: "N", float: "X"}.get(taken.get("type", str), text)
    return (name,) * taken["nargs"] if isinstance(taken.get("nargs"), int) else name


def _is_many(kind: Any) -> bool:
    return get_origin(kind) in (tuple, list, Sequence)


def _without_none(kind: Any) -> Any:
    """The type but for None: of one other type that type, of several their union."""
    if get_origin(kind) not in (Union, types.UnionType):
        return kind
    inner = tuple(k for k in get_args(kind) if k is not type(None))
    return inner[0] if len(inner) == 1 else Union[inner]  # noqa: UP007  made from a tuple


def _help(option: Option) -> str:
    text = option.help.replace("%", "%%")
    default = option.default
    if default is REQUIRED or default is None or option.type is bool or default == ():
        return text
    shown = " ".join(map(_number, default)) if isinstance(default, tuple) else _number(default)
    return f"{text} [{shown}]"


def _number(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    return f"{value:,}" if isinstance(value, int) and value >= 10_000 else f"{value:.4g}"


def _resolved(annotation: Any, space: dict[str, Any]) -> Any:
    """An annotation as a type; with `from __future__ import annotations` it is a string."""
    if not isinstance(annotation, str):
        return annotation
    return eval(annotation, {"Path": Path, "Sequence": Sequence}, space)
