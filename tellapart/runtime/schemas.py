"""Schemas of the JSON files of a run, checked whenever a file is read.

A run folder may come from an untrusted source. Fields that are not listed here are accepted, so
that newer versions and plug-ins can add fields; code that reads such a field checks it.
"""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Annotated, Any, Literal, get_args, get_type_hints

import msgspec
from msgspec import Meta, Struct

from ..errors import RunError, TellapartError
from . import plugins
from .text import safe

LONGEST = 500  # characters of a message, which may quote a value

Count = Annotated[int, Meta(ge=0, le=1 << 53)]
Positive = Annotated[int, Meta(ge=1, le=1 << 53)]
Channels = Annotated[int, Meta(ge=1, le=4096)]
Pixels = Annotated[int, Meta(ge=1, le=16_384)]
Width = Annotated[int, Meta(ge=1, le=65_536)]
Layers = Annotated[int, Meta(ge=1, le=512)]
Steps = Annotated[int, Meta(ge=1, le=65_536)]
Rate = Annotated[int, Meta(ge=1, le=768_000)]
Share = Annotated[float, Meta(ge=0, le=1)]
Pair = Annotated[list[float], Meta(min_length=2, max_length=2)]
Seconds = Annotated[float, Meta(ge=0)]
Word = Annotated[str, Meta(max_length=200)]
Name = Annotated[str, Meta(max_length=4096)]
Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
Head = Literal["none", "linear", "mlp", "linear-bn", "mlp-bn", "mlp3-bn", "tanh"]


# run.json --------------------------------------------------------------------------------------


class Data(Struct):
    """Data that a run was trained on."""

    name: Name
    fingerprint: Name = ""
    items: Count = 0
    trained_on: Count = 0
    splits: dict[Name, Count] = {}
    kind: Word = "images"
    duplicates: Count = 0
    licence: str = ""
    labels_used: bool = False
    image_size: Pixels | None = None
    channels: Channels | None = None
    rate: Rate | None = None
    columns: Positive | None = None
    fit: Name | None = None
    ranges: dict[Name, Pair] | None = None


class Reading(Struct):
    """Settings for reading images, as chosen by the source of the run."""

    fit: Name = "pad"
    ranges: dict[Name, Pair] | None = None


class Best(Struct):
    """The best checkpoint so far, by a criterion that uses no test labels."""

    step: Count
    by: Name
    value: float


class Verdict(Struct):
    """Verdict on the training curves."""

    kind: Name
    sentence: str


class Prefix(Struct):
    """The first bytes of metrics.jsonl, as they were at the last checkpoint."""

    bytes: Count
    sha256: Sha256


class Threads(Struct):
    """Processor threads from a step on."""

    step: Count
    threads: Positive


class Manifest(Struct):
    """run.json"""

    format: int
    method: Word
    config: dict[Name, Any]
    data: Data
    status: Literal["running", "finished", "interrupted", "failed"] = "running"
    heartbeat: Seconds = 0.0
    skipped: list[dict[str, Any]] = []
    versions: dict[Name, Name] | None = None
    hardware: dict[Name, str | int | float | bool | None] | None = None
    seed: int = 0
    step: Count = 0
    steps: Count | None = None
    seconds: Seconds = 0.0
    peak_memory: float | None = None
    best: Best | None = None
    verdict: Verdict | None = None
    error: str | None = None
    bad_batch: list[str] = []
    threads: list[Threads] = []
    notes: list[dict[str, Any]] = []
    files: dict[Name, Sha256] = {}
    files_next: dict[Name, Sha256] = {}
    metrics: Prefix | None = None


class Metrics(Struct):
    """A line of metrics.jsonl; every other field is a number, too."""

    step: Count
    loss: float


# encoder/ --------------------------------------------------------------------------------------


class ImageEncoder(Struct, forbid_unknown_fields=True):
    """encoder/config.json of a network on images."""

    encoder: Name
    channels: Channels
    size: Pixels
    width: Width
    dim: Width
    head_kind: Head
    small_stem: bool | None = None
    pool: Literal["auto", "token", "mean", "both"] = "auto"
    kind: Literal["images"] = "images"
    format: Literal[1] = 1


class SequenceEncoder(Struct, forbid_unknown_fields=True):
    """encoder/config.json of a network on sounds or series."""

    channels: Channels
    width: Width
    context_width: Width
    kernels: Annotated[list[Steps], Meta(min_length=1, max_length=64)]
    strides: Annotated[list[Steps], Meta(min_length=1, max_length=64)]
    norm: Literal["channel", "batch"]
    context: Literal["gru", "lstm"]
    head_kind: Head
    dim: Width
    kind: Literal["sequence"] = "sequence"
    format: Literal[1] = 1


class TextEncoder(Struct, forbid_unknown_fields=True):
    """encoder/config.json of a network on sentences."""

    encoder: Name
    tokenizer: str
    width: Width
    layers: Layers
    dropout: Share
    pooler: Literal["cls", "mean", "first-last"]
    max_length: Steps
    head_kind: Head
    dim: Width
    config: dict[Name, Any] | None = None
    revision: Name | None = None
    kind: Literal["text"] = "text"
    format: Literal[1] = 1


class OwnEncoder(Struct):
    """encoder/config.json of a network of the user, by its name module:object."""

    encoder: Name
    dim: Annotated[int, Meta(ge=0, le=65_536)]
    head_kind: Name = "none"
    width: Width | None = None
    channels: Channels | None = None
    size: Pixels | None = None
    kind: Word = "images"
    format: Literal[1] = 1


class OtherEncoder(Struct):
    """encoder/config.json of a network of another kind, whose modality checks the rest."""

    kind: Name
    format: Literal[1] = 1


class Preprocessor(Struct):
    """encoder/preprocessor.json"""

    image_size: Pixels | None = None
    channels: Channels | None = None
    sample_rate: Rate | None = None
    resize: str = ""
    values: str = ""
    normalisation: str = ""
    tokenizer: str = ""


ENCODERS: dict[str, type[Struct]] = {
    "images": ImageEncoder, "sequence": SequenceEncoder, "text": TextEncoder,
}  # fmt: skip


# eval.json and detection.json ------------------------------------------------------------------


class Score(Struct):
    """A value with its interval."""

    value: float
    low: float
    high: float
    note: str = ""


class Comparison(Struct):
    """A paired comparison of a row with a baseline."""

    column: Name
    row: Name
    baseline: Name
    difference: float
    low: float
    high: float


class Evaluation(Struct):
    """eval.json"""

    verdict: str
    protocol: Name = ""
    headline: Name = ""
    subject: Name = ""
    fingerprint: Name = ""
    data: Name = ""
    checkpoint: Name = "last"
    labels: str | None = None
    step: Count | None = None
    seconds: Seconds = 0.0
    threads: Count = 0
    processor: str = ""
    versions: dict[Name, Name] = {}
    scores: dict[Name, dict[Name, Score]] = {}
    comparisons: list[Comparison] = []
    counts: dict[Name, int | float | str | dict[Name, Any]] = {}
    baselines: list[Name] = []
    geometry: dict[Name, dict[Name, float]] = {}
    view_retrieval: dict[Name, Score] = {}
    sts: dict[Name, Score] = {}
    partners: dict[Name, dict[Name, Score]] = {}
    comparisons_of_partners: list[Comparison] = []
    full: dict[Name, dict[Name, dict[Name, Any]]] = {}
    transfer: dict[Name, dict[Name, Any]] = {}


class Detection(Struct):
    """detection.json"""

    verdict: str = ""


# checking --------------------------------------------------------------------------------------


def check(
    value: Any, schema: Any, file: Any, *, at: str = "", error: type[TellapartError] = RunError
) -> None:
    """Check a value that was read from a file.

    Args:
        value: plain dictionaries, lists, strings and numbers.
        schema: a class of this module, or any annotation.
        file: name of the file, for the message.
        at: field of the file that holds the value, for the message.
        error: class of the error.

    Raises:
        TellapartError: of class `error`, naming the file and the field.
    """
    try:
        msgspec.convert(value, schema, strict=True)
    except (ValueError, TypeError, OverflowError, RecursionError) as reason:
        raise error(f"{file}: {_words(reason, at)}") from reason


def check_fields(values: Any, kind: type, file: Any, *, at: str) -> None:
    """Check the fields of a data class stored as a dictionary; unknown fields are accepted.

    Args:
        values: the dictionary.
        kind: the data class, whose annotations are the schema; a field that is a data class
            itself, or one of several, is left to the caller.
        file: name of the file, for the message.
        at: field of the file that holds the dictionary, for the message.

    Raises:
        RunError: a field has the wrong type.
    """
    check(values, dict[Name, Any], file, at=at)
    known = hints(kind)
    for name, value in values.items():
        if name in known and not _of_classes(known[name]):
            check(value, known[name], file, at=f"{at}.{name}")


def hints(kind: type) -> dict[str, Any]:
    """Return the annotations of a data class by field.

    An annotation with a name that only type checkers import is left out.

    Args:
        kind: the data class.
    """
    found: dict[str, Any] = {}
    for base in reversed(kind.__mro__):
        for name, hint in vars(base).get("__annotations__", {}).items():
            alone = type(name, (), {"__annotations__": {name: hint}, "__module__": base.__module__})
            with contextlib.suppress(NameError):
                found |= get_type_hints(alone)
    return found


def _of_classes(hint: Any) -> bool:
    return any(dataclasses.is_dataclass(part) for part in (hint, *get_args(hint)))


def check_manifest(value: Any, file: Any) -> None:
    """Check the contents of run.json.

    Args:
        value: the parsed file.
        file: name of the file, for the message.

    Raises:
        RunError: a field is missing or has the wrong type or is out of range.
    """
    check(value, Manifest, file)


def check_encoder(value: Any, file: Any, *, error: type[TellapartError] = RunError) -> None:
    """Check the contents of encoder/config.json.

    Args:
        value: the parsed file.
        file: name of the file, for the message.
        error: class of the error.

    Raises:
        TellapartError: of class `error`; a field is missing or has another type or range.
    """
    kind = value.get("kind", "images") if isinstance(value, dict) else "images"
    schema = ENCODERS.get(kind, OtherEncoder) if isinstance(kind, str) else OtherEncoder
    if isinstance(value, dict) and plugins.is_name(value.get("encoder")):
        schema = OwnEncoder
    check(value, schema, file, error=error)
    if schema is SequenceEncoder and len(value["kernels"]) != len(value["strides"]):
        raise error(f"{file}: strides: as many as kernels are needed, {len(value['kernels'])}")


def check_metrics(value: Any, place: Any) -> None:
    """Check a line of metrics.jsonl.

    Args:
        value: the parsed line.
        place: file and line, for the message.

    Raises:
        RunError: a field is missing or is not a number.
    """
    check(value, Metrics, place)
    for name, number in value.items():
        if number is not None and (isinstance(number, bool) or not isinstance(number, int | float)):
            raise RunError(f"{place}: {str(name)[:80]!a}: expected a number, got {_kind(number)}")


def check_evaluation(value: Any, file: Any) -> None:
    """Check the contents of eval.json: types, ranges, and that every row has the same columns.

    Args:
        value: the parsed file.
        file: name of the file, for the message.

    Raises:
        RunError: a field is missing or has the wrong type or is out of range.
    """
    check(value, Evaluation, file)
    rows = value.get("scores") or {}
    columns = {tuple(cells) for cells in rows.values()}
    if len(columns) > 1 and len({frozenset(c) for c in columns}) > 1:
        raise RunError(f"{file}: scores: the rows have different columns")
    if rows and "headline" in value and value["headline"] not in rows:
        raise RunError(f"{file}: headline: {value['headline'][:80]!a} is no row of the scores")
    if rows:
        for name in ("test", "train"):
            if not isinstance(value.get("counts", {}).get(name), int):
                raise RunError(f"{file}: counts.{name}: expected a whole number")
    if lost := [name for name in value.get("baselines", ()) if rows and name not in rows]:
        raise RunError(f"{file}: baselines: {lost[0][:80]!a} is no row of the scores")
    for name, inner in (value.get("transfer") or {}).items():
        check_evaluation(inner, f"{file}: transfer.{name[:80]!a}")


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "true or false"}
    return names.get(type(value), "null" if value is None else "a number")


def _words(reason: Exception, at: str) -> str:
    """A message of msgspec with the field first: "data.items: expected int, got str"."""
    text, _, place = str(reason).partition(" - at `$")
    text = (text[:1].lower() + text[1:]).replace("`", "")
    field = (at + place.removesuffix("`")).lstrip(".")
    return safe((f"{field}: {text}" if field else text)[:LONGEST])
