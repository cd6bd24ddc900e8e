"""The command line: parse, call the function of `api`, print.

Results go to standard output, everything else to standard error. The options of a command are the
parameters of its function (`runtime.options`). A training and a detector also take the fields of
their configuration, whose defaults depend on the method, the data and the preset: these are read
first, then all options.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shlex
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from .errors import ConfigError, TellapartError, unknown
from .runtime import plugins
from .runtime.console import Console, plural
from .runtime.options import REQUIRED, Option, Parser, add, of_function, of_record, summary
from .runtime.text import safe
from .runtime.threads import wait_without_spinning
from .runtime.version import __version__

USAGE = """tellapart: learn what is alike by telling everything apart

  tellapart demo                                             the main job on digits, in 2 minutes
  tellapart inspect photos/                                  duplicates, broken files, wrong labels
  tellapart train --data photos/ --out runs/photos           learn an encoder from unlabelled images
  tellapart eval runs/photos                                 score it beside its baselines
  tellapart search runs/photos query.jpg                     find similar images
  tellapart explore runs/photos                              a local page: map, neighbours, search
  tellapart report runs/photos                               one HTML file
  tellapart embed runs/photos --data more/ --out more.npz    features; also by timm/NAME
  tellapart export runs/photos --out encoder/                weights that load without tellapart
  tellapart manifest photos/ --out photos.parquet            a list of millions, for embed --data
  tellapart compare runs/a runs/b                            runs side by side
  tellapart detect runs/photos --data coco:boxes/            as the backbone of a detector

tellapart COMMAND --help shows the options of a command; every command takes --json.
tellapart --completion bash (or zsh) prints a script that completes commands and options."""

DEMO = "(runs/demo is the run that `tellapart demo` writes)\n"
LONGEST = 2000  # characters of an error message
METHOD = "simclr"  # whose options `train --help` shows
DATA = {"simcse": "sentences.txt"}  # of an example, for methods that digits do not suit
Given = dict[str, Any]
CONFIG = Option(
    "config",
    str | None,
    None,
    "file of settings (YAML, or the run.json of a run); other options stand above it.",
)
PRINT = Option(
    "print_config", bool, False, "print the settings as YAML, which --config reads, and stop."
)


@dataclass(frozen=True)
class Command:
    """A command of the program.

    Attributes:
        function: name of its function, in `api` or `demo`.
        example: arguments that work as typed.
        first: options that matter first; --help lists them, --help-all all.
        after: the command to type next, from what was given and the result.
        rename: parameter -> its flag, where they differ.
    """

    function: str
    example: str
    first: tuple[str, ...]
    after: Callable[[Given, Any], str]
    rename: Mapping[str, str] = dataclasses.field(default_factory=dict)


def _subject(given: Given) -> str:
    return str(given.get("subject", given.get("run", "")))


def _run_of(given: Given) -> str:
    return shlex.quote(_subject(given))


def _is_run(given: Given) -> bool:
    from .training.run import Run

    return Run.exists(_subject(given))


def _with_data(verb: str, given: Given) -> str:
    """A verb on the same subject and, if --data was given, the same data."""
    data = given.get("data")
    return f"{verb} {_run_of(given)}" + (f" --data {shlex.quote(str(data))}" if data else "")


def _after_inspect(given: Given, result: Any) -> str:
    method, data = given.get("method") or METHOD, shlex.quote(given["data"])
    return f"train {method} --data {data} --out runs/new"


def _after_eval(given: Given, result: Any) -> str:
    if _subject(given).endswith(".npz") or ("step" in result and "data" not in given):
        return f"explore {_run_of(given)}"
    return f"embed {_run_of(given)} --data DATA --out vectors.npz"


def _after_embed(given: Given, result: Any) -> str:
    out = shlex.quote(str(given["out"]))
    if "shards" in getattr(result, "__dataclass_fields__", ()):
        return "" if given.get("worker") else f"explore {out}"
    return f"eval {out}"


def _after_report(given: Given, result: Any) -> str:
    if _is_run(given):
        return f"export {_run_of(given)} --out encoder/"
    return _with_data("explore", given)


def _after_detect(given: Given, result: Any) -> str:
    if _is_run(given):
        return f"report {_run_of(given)}"
    return f"embed {_run_of(given)} --data DATA --out vectors.npz"


COMMANDS = {
    "demo": Command(
        "demo",
        "--out runs/demo",
        ("out", "seed", "full", "epochs"),
        lambda given, result: f"explore {result['run']}",
    ),
    "inspect": Command(
        "inspect",
        "digits --html inspect.html",
        ("method", "encoder", "html", "apply"),
        _after_inspect,
    ),
    "train": Command(
        "train",
        "simclr --data digits --out runs/digits",
        ("data", "out", "epochs", "minutes", "resume"),
        lambda given, result: f"eval {shlex.quote(result['run'])}",
    ),
    "eval": Command(
        "evaluate",
        "runs/demo --quick",
        ("data", "labels", "quick", "full", "out"),
        _after_eval,
    ),
    "search": Command(
        "search",
        "runs/demo runs/demo-pictures/test/3/1438.png",
        ("data", "k", "threshold", "sheet_path", "index"),
        lambda given, result: _with_data("explore", given),
        {"sheet_path": "sheet"},
    ),
    "explore": Command(
        "explore",
        "runs/demo",
        ("data", "browser", "host", "port"),
        lambda given, result: _with_data("report", given),
    ),
    "report": Command(
        "report",
        "runs/demo --out report.html",
        ("data", "out"),
        _after_report,
    ),
    "embed": Command(
        "embed",
        "runs/demo --data runs/demo-pictures --out pictures.npz",
        ("data", "out", "output", "checkpoint", "workers"),
        _after_embed,
    ),
    "manifest": Command(
        "manifest",
        "runs/demo-pictures --out pictures.parquet",
        ("out", "label_level"),
        lambda given, result: f"embed ENCODER --data {shlex.quote(result['out'])} --out vectors/",
    ),
    "export": Command(
        "export",
        "runs/demo --out encoder/",
        ("out", "onnx", "fold_batchnorm", "bf16", "checkpoint"),
        lambda given, result: "",
    ),
    "compare": Command(
        "compare",
        "runs/demo runs/digits",
        (),
        lambda given, result: f"report {shlex.quote(given['runs'][0])}",
    ),
    "detect": Command(
        "detect",
        "runs/demo --data scenes:digits --steps 100",
        ("data", "preset", "steps", "supervised", "out"),
        _after_detect,
    ),
}
VERBS = COMMANDS


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command.

    Args:
        arguments: words of the command line; None: those of the process.

    Errors go to standard error with exit status 2, or 3 where only part of the work failed;
    Ctrl-C is 130.
    """
    as_json = False
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _warn
            parser = _top()
            words = sys.argv[1:] if arguments is None else [str(word) for word in arguments]
            _check_words(words)
            top, extra = parser.parse_known_args(words)
            parser.refuse(extra)
            as_json = _json_only().parse_known_args(top.rest)[0].json
            _run(top, as_json)
    except TellapartError as error:
        _fail(str(error), as_json, error.status)
    except KeyboardInterrupt as error:
        _fail(str(error) or "stopped", as_json, 130)
    except BrokenPipeError:
        sys.stderr.close()
    except Exception as error:
        if isinstance(error, OSError) and error.strerror:  # of the file system: no room, no right
            named = f"{error.filename}: " if error.filename is not None else ""
            _fail(f"{named}{error.strerror[:1].lower()}{error.strerror[1:]}", as_json, 2)
        if os.environ.get("TELLAPART_DEBUG"):
            raise
        message = f"unexpected {type(error).__name__}: {error} (TELLAPART_DEBUG=1 shows where)"
        _fail(message, as_json, 1)


def _check_words(words: Sequence[str]) -> None:
    """Refuse words that no file name and no file can hold, such as half of a surrogate pair.

    Raises:
        ConfigError: such a word.
    """
    for word in words:
        try:
            os.fsencode(word)
        except UnicodeEncodeError as error:
            raise ConfigError(f"{word!a} is not text that can be encoded") from error


def _top() -> Parser:
    """The text before the options of a command."""
    parser = Parser("tellapart")
    parser.add_argument("-h", "--help", action="store_true")
    parser.add_argument("--version", action="store_true")
    parser.add_argument("--completion", metavar="SHELL")
    parser.add_argument("command", nargs="?")
    parser.add_argument("rest", nargs=argparse.REMAINDER)
    return parser


def _json_only() -> Parser:
    parser = Parser("tellapart")
    parser.add_argument("--json", action="store_true")
    return parser


def _run(top: argparse.Namespace, as_json: bool) -> None:
    if top.completion:
        print(_completion(top.completion))
    elif top.version:
        print(__version__)
    elif top.command is None or top.help:
        print(USAGE)
    elif top.command not in COMMANDS:
        raise unknown("verb", top.command, COMMANDS)
    else:
        _command(top.command, top.rest, as_json)


def _command(name: str, rest: Sequence[str], as_json: bool) -> None:
    """Parse the options of a command, call its function, and print the result."""
    plugins.load_plugins()
    command = COMMANDS[name]
    Parser(f"tellapart {name}").refuse_dashes(rest)
    head, words, options, prefixes = _described(name, rest)
    parser = Parser(
        f"tellapart {name}{f' {head}' if head else ''}",
        description=summary(_function(command).__doc__),
        example=_example(name, command, head),
    )
    shown = _json_help().parse_known_args(words)[0]
    first = [command.rename.get(name, name) for name in command.first]
    if not shown.help_all:
        options = sorted(options, key=lambda o: _place(o, first))
    add(parser, options, None if shown.help_all else first)
    _shared(parser)
    if shown.help or shown.help_all:
        print(_help(parser, options, first, full=shown.help_all))
        return
    if printed := "--print-config" in words and name == "train":
        parser.needed.pop("out", None)
    given = parser.parse_all(words)
    wait_without_spinning()
    if head:
        given["method"] = head
    for shared in ("json", "help", "help_all", PRINT.name):
        given.pop(shared, None)
    if printed:
        from .api import training_settings

        text = training_settings(**nested(given, prefixes))
        print(json.dumps({"yaml": text}) if as_json else text, end="" if not as_json else "\n")
        return
    console = Console(quiet=as_json)
    result = _function(command)(**nested(given, prefixes), console=console)
    if os.environ.get("RANK", "0") != "0":
        return
    if as_json:
        print(json.dumps(_plain(name, given, result), indent=1, default=str))
        return
    if name == "search":
        _print_neighbours(given["queries"], result)
    after = command.after(given, result)
    if after:
        console.say(f"next: tellapart {after}")


def _example(name: str, command: Command, method: str) -> str:
    """A command that works as typed, with data that the method can learn from."""
    words = f"tellapart {name} {command.example}".replace(METHOD, method or METHOD)
    return words.replace("digits", DATA.get(method, "digits"), 1)


def _described(
    name: str, rest: Sequence[str]
) -> tuple[str, Sequence[str], list[Option], Sequence[str]]:
    """The method of a training, the words after it, the options, and the nested prefixes."""
    command = COMMANDS[name]
    own = [
        dataclasses.replace(o, name=command.rename.get(o.name, o.name))
        for o in of_function(_function(command), leave_out=("console", "config", "method_"))
    ]
    if name == "train":
        method, words = _method(rest)
        own = [o for o in own if o.name != "method"]
        shown = _json_help().parse_known_args(words)[0]
        wants_help = shown.help or shown.help_all
        found = _training(method or (METHOD if wants_help else None), words)
        own = [_required(o, found.in_file) for o in (*own, CONFIG, PRINT)]
        shared = settings(found.method, found.data, found.preset, found.init)
        return method, words, [*own, *shared], ("objective",)
    if name == "detect":
        from .training.presets.detection import PRESETS

        _, preset = _ahead(rest, "data", "preset")
        if preset and preset not in PRESETS:
            raise unknown("preset", preset, PRESETS)
        record = PRESETS[preset or "scenes"]()
        return "", rest, [*own, *of_record(record, group="settings of the detector")], ()
    return "", rest, own, ()


def _method(rest: Sequence[str]) -> tuple[str, Sequence[str]]:
    """The method of a training, "" if none is named, and the words after it."""
    from .objectives import METHODS

    parser = Parser("tellapart train")
    _shared(parser)
    parser.add_argument("method", nargs="?")
    parser.add_argument("rest", nargs=argparse.REMAINDER)
    ahead = [word for word in rest if word not in ("--json", "-h", "--help", "--help-all")][:1]
    if not ahead or ahead[0].startswith("-"):
        return "", rest
    found, _ = parser.parse_known_args(list(rest))
    if found.method not in METHODS and not plugins.is_name(found.method):
        raise unknown("method", str(found.method), METHODS)
    flags = [f"--{flag}" for flag in ("help", "json") if getattr(found, flag)]
    return found.method, [*flags, *found.rest]


@dataclass(frozen=True)
class Training:
    """Return the words, or the file of settings, that decide the options of a training."""

    method: str
    data: str | None
    preset: str | None
    init: str | None
    in_file: bool


def _training(method: str | None, words: Sequence[str]) -> Training:
    """Read ahead what decides the options of a training."""
    names = ("data", "preset", "columns", "fps", "init", "config", "out")
    given = dict(zip(names, _ahead(words, *names), strict=True))
    data = given_with(given["data"], given["columns"], given["fps"])
    preset, init, file = given["preset"], given["init"], None
    if given["config"] is not None:
        from .training.config_file import read

        file = read(given["config"])
        preset, data = preset or file.preset, data or file.data
        init = init or file.settings.get("init")
    if method is None:
        from .training.request import method_of

        resumed = Path(given["out"]) if given["out"] and "--resume" in words else None
        method, _ = method_of(data or "", file, preset=preset, resumed=resumed)
    return Training(method, data, preset, init, file is not None and file.data is not None)


def _required(option: Option, in_file: bool) -> Option:
    """The option of the data must be given, unless a file of settings names the data."""
    if option.name == "data" and not in_file:
        return dataclasses.replace(option, default=REQUIRED)
    return option


def given_with(data: str | None, columns: str | None, fps: str | None) -> str | None:
    """The data with their options behind them, from which the kind of the data is read."""
    from .data import specs

    options = {**specs.columns_of(columns), specs.FPS: fps}
    return None if data is None else specs.with_options(data, options)


def _ahead(words: Sequence[str], *names: str) -> list[str | None]:
    """The values of options that decide the defaults of others."""
    parser = Parser("tellapart")
    for name in names:
        parser.add_argument(f"--{name}")
    found = parser.parse_known_args(list(words))[0]
    return [getattr(found, name) for name in names]


def settings(
    method: str, data: str | None, preset: str | None, init: str | None = None
) -> list[Option]:
    """The settings of a training: of the configuration, of its views, and of the method."""
    from .training import presets

    if plugins.is_name(method):
        from .api import method_name

        method_name(method)
    config = presets.starting(method, data or "", preset, init)
    common = [o for o in of_record(config) if o.name not in ("views", "objective")]
    own = getattr(config, "views", None)  # a registered kind of data may have none
    views = of_record(own, group="views") if own else []
    taken = {o.name for o in (*common, *views)} | {"data", "out", "resume", "preset", "method"}
    objective = [
        o if (inner := o.name.partition(".")[2]) in taken else dataclasses.replace(o, alias=inner)
        for o in of_record(config.objective, prefix="objective.", group=f"options of {method}")
    ]
    return [*common, *views, *objective]


def nested(given: Given, prefixes: Sequence[str]) -> Given:
    """Options as keyword arguments: those with a prefix in a dictionary of their own."""
    flat = {name: value for name, value in given.items() if "." not in name}
    for prefix in prefixes:
        inner = {
            name.partition(".")[2]: tuple(value) if isinstance(value, list) else value
            for name, value in given.items()
            if name.startswith(f"{prefix}.")
        }
        if inner:
            flat[prefix] = inner
    renamed = {"sheet": "sheet_path"}
    return {
        renamed.get(name, name): tuple(value) if isinstance(value, list) else value
        for name, value in flat.items()
    }


def _shared(parser: Parser) -> None:
    """The options of every command; the last line of a help names them."""
    for flags in (("--json",), ("-h", "--help"), ("--help-all",)):
        parser.add_argument(*flags, action="store_true", help=argparse.SUPPRESS)


def _json_help() -> Parser:
    parser = Parser("tellapart")
    _shared(parser)
    return parser


def _place(option: Option, first: Sequence[str]) -> int:
    """The rank of an option in the short help: what is positional, then what matters first."""
    if option.positional:
        return -1
    return first.index(option.name) if option.name in first else len(first)


def _help(parser: Parser, options: Sequence[Option], first: Sequence[str], *, full: bool) -> str:
    """The help of a command: usage, what it does, its options, an example."""
    places = " ".join(o.name.upper() + " ..." * o.many for o in options if o.positional)
    needed = " ".join(
        f"{o.flag} {o.name.upper()}" for o in options if not o.positional and o.default is REQUIRED
    )
    named = "[METHOD]" if parser.prog == "tellapart train" else ""
    parser.usage = " ".join(filter(None, (parser.prog, named, places, needed, "[options]")))
    hidden = sum(not o.positional and o.name not in first for o in options)
    after = DEMO if "runs/demo" in parser.example and "tellapart demo" not in parser.example else ""
    last = "--json prints the result as JSON"
    if hidden and not full:
        last += f"; --help-all shows {plural(hidden, 'more option')}"
    return f"{parser.format_help().rstrip()}\n\nExample: {parser.example}\n{after}{last}"


def _function(command: Command) -> Callable[..., Any]:
    if command.function == "demo":
        from .demo import demo

        return demo
    from . import api

    function: Callable[..., Any] = getattr(api, command.function)
    return function


def _plain(name: str, given: Given, result: Any) -> Any:
    """A result as JSON holds it."""
    if name == "embed" and not isinstance(result, Mapping):
        return {"out": str(given["out"]), "items": len(result), "width": result.vectors.shape[1]}
    if name == "search":
        return [
            {"query": query, "found": best}
            for query, best in zip(given["queries"], result, strict=True)
        ]
    if isinstance(result, Mapping):
        return dict(result)
    return list(result)


def _print_neighbours(queries: Sequence[str], result: Sequence[Any]) -> None:
    for query, best in zip(queries, result, strict=True):
        print(safe(query))
        for item in best:
            percentile = item["percentile"]
            rank = "" if percentile is None else f"p{percentile:<5g}  "
            words = [safe(item["id"]), safe(item["label"] or ""), safe(item.get("text", ""))]
            if "begin" in item:
                place = f"{item['begin']:g} to {item['end']:g} {item['unit']}"
                words.append(f"{safe(item['file'])}, {place}")
            print(f"  {item['similarity']:.4f}  {rank}{'  '.join(filter(None, words))}")
        if best and (pairs := best[0]["random_pairs"])["mean"] is not None:
            print(
                f"  random pairs {pairs['mean']:.2f} ± {pairs['std']:.2f}; p: % of random pairs "
                "that are less similar"
            )


def _completion(shell: str) -> str:
    """A script that completes commands and options in a shell."""
    import shtab

    if shell not in shtab.SUPPORTED_SHELLS:
        raise unknown("shell", shell, shtab.SUPPORTED_SHELLS)
    from .objectives import METHODS

    parser = argparse.ArgumentParser("tellapart", add_help=False)
    commands = parser.add_subparsers()
    for name, command in COMMANDS.items():
        inner = commands.add_parser(name, help=summary(_function(command).__doc__), add_help=False)
        if name == "train":
            inner.add_argument("method", choices=list(METHODS))
        known: set[str] = set()
        for method in METHODS if name == "train" else ("",):
            for option in _described(name, [*filter(None, [method]), "--help"])[2]:
                flags = {option.flag, f"--{option.alias}" if option.alias else option.flag} - known
                if flags and not option.positional:
                    text = option.help.replace("%", "%%")
                    action: Any = inner.add_argument(*sorted(flags), dest=option.name, help=text)
                    action.complete = shtab.FILE  # an attribute that shtab reads
                    known |= flags
    script: str = shtab.complete(parser, shell)
    return script


def _warn(
    message: Warning | str, category: type[Warning], filename: str, *_: Any, **__: Any
) -> None:
    print(f"warning: {safe(message, lines=True)}", file=sys.stderr)


def _fail(message: str, as_json: bool, status: int) -> NoReturn:
    if len(message) > LONGEST:  # it quotes what a user or a file gave
        message = f"{message[: LONGEST // 2]} ... {message[-LONGEST // 4 :]}"
    if as_json:
        print(json.dumps({"error": message}))
    print(f"error: {safe(message, lines=True)}", file=sys.stderr)
    sys.exit(status)
