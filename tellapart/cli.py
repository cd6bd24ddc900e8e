"""The command line: parse, call a verb, print. Results go to standard output, all else to standard error."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Annotated, Any

import tyro

from .arguments import (
    Compare,
    Demo,
    Detect,
    Embed,
    Eval,
    Explore,
    Export,
    Inspect,
    Report,
    Search,
    Train,
)
from .errors import TellapartError, unknown
from .runtime.text import safe
from .runtime.version import __version__

USAGE = """tellapart: learn what is alike by telling everything apart

  tellapart inspect photos/                                  what is in it, what is broken, what is duplicated
  tellapart demo                                             the main job on embedded digits, in under 2 minutes
  tellapart train instdisc --data photos/ --out runs/photos  learn an encoder from unlabelled images
  tellapart eval runs/photos                                 judge it against pixels and the untrained network
  tellapart eval timm/resnet18 --data photos/                the same for any network, or vectors in an .npz
  tellapart detect runs/photos --data coco:boxes/            as the backbone of a detector
  tellapart compare runs/a runs/b                            runs side by side
  tellapart search runs/photos query.jpg                     look-alikes
  tellapart explore runs/photos                              a local page: map, neighbours, drop an image to search
  tellapart report runs/photos                               all of it in one HTML file
  tellapart embed runs/photos --data more/ --out more.npz    vectors of other images; timm/NAME works too
  tellapart export runs/photos --out encoder/                weights that anyone can load without tellapart

tellapart VERB --help tells the options of a verb; every verb takes --json."""

Flat = tyro.conf.arg(name="")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command; errors go to standard error with exit status 2, Ctrl-C is 130."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    as_json = "--json" in given
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _warn
            result = _run(given)
        if as_json and os.environ.get("RANK", "0") == "0":
            print(json.dumps(result, indent=1, default=str))
    except TellapartError as error:
        _fail(str(error), as_json, 2)
    except KeyboardInterrupt as error:
        _fail(str(error) or "stopped", as_json, 130)
    except BrokenPipeError:
        sys.stderr.close()
    except Exception as error:
        if os.environ.get("TELLAPART_DEBUG"):
            raise
        _fail(
            f"unexpected {type(error).__name__}: {error} (TELLAPART_DEBUG=1 shows where)",
            as_json,
            1,
        )


def _run(given: list[str]) -> Any:
    if not given or given[0] in ("-h", "--help"):
        print(USAGE)
        return None
    if given[0] == "--version":
        print(__version__)
        return None
    verb, rest = given[0], given[1:]
    if verb not in VERBS:
        raise unknown("verb", verb, VERBS)
    return VERBS[verb](rest)


def _train(rest: list[str]) -> Any:
    from . import api
    from .objectives import METHODS
    from .training import presets

    if not rest or rest[0].startswith("-"):
        if not rest or rest[0] not in ("-h", "--help"):
            raise unknown("method", rest[0] if rest else "", METHODS)
        rest = ["instdisc", *rest]
    method = rest[0]
    if method not in METHODS:
        raise unknown("method", method, METHODS)
    preset = _value(rest, "--preset") or presets.name_for(method, _value(rest, "--data") or "")
    default = presets.named(preset)

    made = dataclasses.make_dataclass(
        "Train", [("config", Annotated[type(default), Flat], default)], bases=(Train,), frozen=True
    )
    made.__doc__ = (
        f"Train {method}; the defaults of the settings are those of the preset {preset}. "
        f"Example: tellapart train {method} --data photos/ --out runs/photos --epochs 50 --objective.temperature 0.1"
    )
    args = _parse(made, rest[1:], f"tellapart train {method}")
    return vars(
        api.train(
            method,
            data=args.data,
            out=args.out,
            resume=args.resume,
            preset=preset,
            config=args.config,
            console=_console(args),
        )
    )


def _eval(rest: list[str]) -> Any:
    args = _parse(Eval, rest, "tellapart eval")
    from . import api

    options = _without_json(args) | {"data": args.data or None}
    return api.evaluate(**options, console=_console(args))


def _detect(rest: list[str]) -> Any:
    from . import api
    from .evaluation.detector import PRESETS, DetectConfig

    preset = _value(rest, "--preset") or "scenes"
    if preset not in PRESETS:
        raise unknown("preset", preset, PRESETS)
    made = dataclasses.make_dataclass(
        "Detect",
        [("config", Annotated[DetectConfig, Flat], PRESETS[preset]())],
        bases=(Detect,),
        frozen=True,
    )
    made.__doc__ = (
        "An encoder as the backbone of Faster R-CNN, beside random weights and the supervised encoder. "
        "Example: tellapart detect runs/photos --data coco:boxes/ --head fpn --steps 2000"
    )
    args = _parse(made, rest, "tellapart detect")
    options = {k: v for k, v in vars(args).items() if k not in ("json", "config")}
    return api.detect(**options, **vars(args.config), console=_console(args))


def _compare(rest: list[str]) -> Any:
    args = _parse(Compare, rest, "tellapart compare")
    from . import api

    return api.compare(args.runs, console=_console(args))


def _embed(rest: list[str]) -> Any:
    args = _parse(Embed, rest, "tellapart embed")
    from . import api

    found = api.embed(**_without_json(args), console=_console(args))
    return {"out": str(args.out), "items": len(found), "width": found.vectors.shape[1]}


def _search(rest: list[str]) -> Any:
    args = _parse(Search, rest, "tellapart search")
    from . import api

    found = api.search(
        args.run, args.queries, k=args.k, threshold=args.threshold, index=args.index, sheet_path=args.sheet,
        console=_console(args),
    )  # fmt: skip
    result = [{"query": q, "found": near} for q, near in zip(args.queries, found, strict=True)]
    if not args.json:
        for row in result:
            print(safe(row["query"]))
            for near in row["found"]:
                label = f"  {safe(near['label'])}" if near["label"] else ""
                print(f"  {near['similarity']:.4f}  {safe(near['id'])}{label}")
    return result


def _report(rest: list[str]) -> Any:
    args = _parse(Report, rest, "tellapart report")
    from . import api

    return api.report(args.run, out=args.out or args.run / "report.html", console=_console(args))


def _inspect(rest: list[str]) -> Any:
    args = _parse(Inspect, rest, "tellapart inspect")
    from . import api

    return api.inspect(**_without_json(args), console=_console(args))


def _explore(rest: list[str]) -> Any:
    args = _parse(Explore, rest, "tellapart explore")
    from . import api

    return api.explore(**_without_json(args), console=_console(args))


def _export(rest: list[str]) -> Any:
    args = _parse(Export, rest, "tellapart export")
    from . import api

    return api.export(**_without_json(args), console=_console(args))


def _demo(rest: list[str]) -> Any:
    args = _parse(Demo, rest, "tellapart demo")
    from .demo import demo

    return demo(args.out, seed=args.seed, full=args.full, console=_console(args))


VERBS = {
    "demo": _demo, "train": _train, "eval": _eval, "detect": _detect,
    "compare": _compare, "search": _search, "embed": _embed,
    "inspect": _inspect, "explore": _explore, "report": _report, "export": _export,
}  # fmt: skip


def _parse(kind: Any, rest: list[str], program: str) -> Any:
    return tyro.cli(
        kind,
        args=rest,
        prog=program,
        description=kind.__doc__,
        config=(tyro.conf.AvoidSubcommands,),
    )


def _without_json(args: Any) -> dict[str, Any]:
    return {k: v for k, v in vars(args).items() if k != "json"}


def _console(args: Any) -> Any:
    from .runtime.console import Console

    return Console(quiet=args.json)


def _value(arguments: list[str], flag: str) -> str | None:
    """The value of a flag before the real parsing, which needs the defaults that it chooses."""
    for i, word in enumerate(arguments):
        if word == flag and i + 1 < len(arguments):
            return arguments[i + 1]
        if word.startswith(f"{flag}="):
            return word.partition("=")[2]
    return None


def _warn(
    message: Warning | str, category: type[Warning], filename: str, *_: Any, **__: Any
) -> None:
    print(f"warning: {safe(message, lines=True)}", file=sys.stderr)


def _fail(message: str, as_json: bool, status: int) -> None:
    if as_json:
        print(json.dumps({"error": message}))
    print(f"error: {safe(message, lines=True)}", file=sys.stderr)
    sys.exit(status)
