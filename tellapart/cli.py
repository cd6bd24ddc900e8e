"""The command line: parse, call a verb, print. Results go to standard output, all else to standard error."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from .errors import TellapartError, unknown
from .version import __version__

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


@dataclass(frozen=True)
class Output:
    """How the result is shown."""

    json: bool = False
    """print the result as JSON, and nothing else."""


@dataclass(frozen=True)
class Demo(Output):
    """The main job. Example: tellapart demo --out runs/demo"""

    out: Path = Path("runs/demo")
    """folder of the run; the next free one if it is taken."""
    seed: int = 0
    """of everything random."""


@dataclass(frozen=True)
class Eval(Output):
    """Judge an encoder beside its baselines. Example: tellapart eval runs/photos --labels few.csv"""

    subject: tyro.conf.Positional[str] = tyro.MISSING
    """a run folder, timm/NAME, torchvision/NAME, a file of weights, or embeddings (.npz)."""
    data: tuple[str, ...] = ()
    """source to judge it on, by default the run's own; several make a table of transfer. Of sentences also sts:FILE."""
    protocol: str = "eval-v1"
    """what is measured and how, frozen under this name."""
    full: bool = False
    """also every stage, more labels, fine-tuning and distillation, and what the head discards; many minutes."""
    stage_dims: int = 1024
    """with --full: a stage's feature map is pooled to at most so many values."""
    stage_rows: int = 10_000
    """with --full: training items that the classifier of a stage is fitted to, at most."""
    checkpoint: str = "last"
    """of a run: last, best-unlabelled, or a file of weights."""
    labels: Path | None = None
    """lines of id,label: judge on these items."""
    encoder: str | None = None
    """the network of a file of weights, where it does not tell."""
    width: int = 16
    """base width of small-resnet in a file of weights."""
    image_size: int | None = None
    """side of a view in pixels; by default the run's, or decided from the images."""
    test: Path | None = None
    """for embeddings: those of a test part."""
    out: Path | None = None
    """where the result goes; by default eval.json in the run, else in this folder."""


@dataclass(frozen=True)
class Detect(Output):
    """What `detect` has beside the settings of the detector, which are flags too."""

    subject: tyro.conf.Positional[str] = tyro.MISSING
    """a run folder, timm/NAME, torchvision/NAME, or a file of weights."""
    data: str = "scenes:fashion-mnist"
    """coco:FOLDER, voc:FOLDER, or scenes:digits, scenes:fashion-mnist."""
    preset: str = "scenes"
    """scenes, voc07 or voc07-instdisc."""
    checkpoint: str = "last"
    """of a run: last, best-unlabelled, or a file of weights."""
    encoder: str | None = None
    """the network of a file of weights, where it does not tell."""
    width: int = 16
    """base width of small-resnet in a file of weights."""
    supervised: bool = True
    """also the same network trained with the labels of the run's own source."""
    out: Path | None = None
    """where the result goes; by default detection.json in the run, else in this folder."""


@dataclass(frozen=True)
class Compare(Output):
    """Runs side by side: cost, loss, scores. Example: tellapart compare runs/simclr runs/moco"""

    runs: tyro.conf.Positional[tuple[Path, ...]] = tyro.MISSING
    """folders of runs."""


@dataclass(frozen=True)
class Search(Output):
    """Find look-alikes. Example: tellapart search runs/photos query.jpg --k 5 --sheet found.png"""

    run: tyro.conf.Positional[Path] = tyro.MISSING
    """folder of the run."""
    queries: tyro.conf.Positional[tuple[str, ...]] = tyro.MISSING
    """image files, or ids of items of the run's source."""
    k: int = 10
    """look-alikes of each query."""
    threshold: float = -1.0
    """the least cosine similarity of a look-alike, -1 to 1."""
    index: Literal["exact", "flat", "hnsw", "ivf-pq"] = "exact"
    """how neighbours are found: exact, or by an index of FAISS (an extra), built once; its recall is printed."""
    sheet: Path | None = None
    """a picture of queries and look-alikes to write."""


@dataclass(frozen=True)
class Embed(Output):
    """Vectors; again: of new files alone. Example: tellapart embed timm/resnet18 --data photos/ --out a.npz"""

    subject: tyro.conf.Positional[str] = tyro.MISSING
    """a run folder, timm/NAME, torchvision/NAME, or a file of weights."""
    out: Path = tyro.MISSING
    """an .npz file, or a folder whose vectors can be memory-mapped."""
    data: str | None = None
    """source; by default the one the run was trained on."""
    output: Literal["features", "embedding", "patches"] = "features"
    """features are what you take away, embedding is the space of the loss, patches a vector for each place."""
    checkpoint: str = "last"
    """of a run: last, best-unlabelled, or a file of weights."""
    encoder: str | None = None
    """the network of a file of weights, where it does not tell."""
    width: int = 16
    """base width of small-resnet in a file of weights."""
    image_size: int | None = None
    """side of a view in pixels; by default the run's, or decided from the images."""


@dataclass(frozen=True)
class Report(Output):
    """A run as one HTML file that needs nothing else. Example: tellapart report runs/photos --out report.html"""

    run: tyro.conf.Positional[Path] = tyro.MISSING
    """folder of the run."""
    out: Path | None = None
    """the file; by default report.html in the run."""


@dataclass(frozen=True)
class Train(Output):
    """What every training has beside its settings, which are flags too and depend on the kind of data."""

    data: str = tyro.MISSING
    """folder of images or sounds, list of paths, .npy or .csv, digits, fashion-mnist, cifar10, stl10, scenes:NAME."""
    out: Path = tyro.MISSING
    """new folder of the run."""
    resume: bool = False
    """go on with the run in --out."""
    preset: str | None = None
    """settings to start from; by default those for the method and the data."""


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
        _fail(f"unexpected {type(error).__name__}: {error} (TELLAPART_DEBUG=1 shows where)", as_json, 1)


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
    from . import presets, verbs
    from .objectives import METHODS

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
        verbs.train(
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
    from . import verbs

    options = {k: v for k, v in vars(args).items() if k != "json"} | {"data": args.data or None}
    return verbs.evaluate(**options, console=_console(args))


def _detect(rest: list[str]) -> Any:
    from . import verbs
    from .evaluation.detection import PRESETS, DetectConfig

    preset = _value(rest, "--preset") or "scenes"
    if preset not in PRESETS:
        raise unknown("preset", preset, PRESETS)
    made = dataclasses.make_dataclass(
        "Detect", [("config", Annotated[DetectConfig, Flat], PRESETS[preset]())], bases=(Detect,), frozen=True
    )
    made.__doc__ = (
        "An encoder as the backbone of Faster R-CNN, beside random weights and the supervised encoder. "
        "Example: tellapart detect runs/photos --data coco:boxes/ --head fpn --steps 2000"
    )
    args = _parse(made, rest, "tellapart detect")
    options = {k: v for k, v in vars(args).items() if k not in ("json", "config")}
    return verbs.detect(**options, **vars(args.config), console=_console(args))


def _compare(rest: list[str]) -> Any:
    args = _parse(Compare, rest, "tellapart compare")
    from . import verbs

    return verbs.compare(args.runs, console=_console(args))


def _embed(rest: list[str]) -> Any:
    args = _parse(Embed, rest, "tellapart embed")
    from . import verbs

    options = {k: v for k, v in vars(args).items() if k != "json"}
    found = verbs.embed(**options, console=_console(args))
    return {"out": str(args.out), "vectors": len(found), "width": found.vectors.shape[1]}


def _search(rest: list[str]) -> Any:
    args = _parse(Search, rest, "tellapart search")
    from . import verbs

    found = verbs.search(
        args.run, args.queries, k=args.k, threshold=args.threshold, index=args.index, sheet_path=args.sheet,
        console=_console(args),
    )  # fmt: skip
    result = [{"query": q, "found": near} for q, near in zip(args.queries, found, strict=True)]
    if not args.json:
        for row in result:
            print(row["query"])
            for near in row["found"]:
                print(f"  {near['similarity']:.4f}  {near['id']}" + (f"  {near['label']}" if near["label"] else ""))
    return result


def _report(rest: list[str]) -> Any:
    args = _parse(Report, rest, "tellapart report")
    from . import verbs

    return verbs.report(args.run, out=args.out or args.run / "report.html", console=_console(args))


def _demo(rest: list[str]) -> Any:
    args = _parse(Demo, rest, "tellapart demo")
    from .demo import demo

    return demo(args.out, seed=args.seed, console=_console(args))


VERBS = {
    "demo": _demo, "train": _train, "eval": _eval, "detect": _detect,
    "compare": _compare, "search": _search, "embed": _embed, "report": _report,
}  # fmt: skip


def _parse(kind: Any, rest: list[str], program: str) -> Any:
    return tyro.cli(kind, args=rest, prog=program, description=kind.__doc__, config=(tyro.conf.AvoidSubcommands,))


def _console(args: Any) -> Any:
    from .console import Console

    return Console(quiet=args.json)


def _value(arguments: list[str], flag: str) -> str | None:
    """The value of a flag before the real parsing, which needs the defaults that it chooses."""
    for i, word in enumerate(arguments):
        if word == flag and i + 1 < len(arguments):
            return arguments[i + 1]
        if word.startswith(f"{flag}="):
            return word.partition("=")[2]
    return None


def _warn(message: Warning | str, category: type[Warning], filename: str, *_: Any, **__: Any) -> None:
    print(f"warning: {message}", file=sys.stderr)


def _fail(message: str, as_json: bool, status: int) -> None:
    if as_json:
        print(json.dumps({"error": message}))
    print(f"error: {message}", file=sys.stderr)
    sys.exit(status)
