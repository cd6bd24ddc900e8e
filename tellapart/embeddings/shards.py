"""Vectors of a data set of any size, as a folder of shards: the contract between workers.

A manifest is cut into shards of 4,096 rows. plan.json pins all that decides a vector. Each shard
becomes part-00017.parquet (id, hash of the bytes, vector, label, split), and errors-00017.parquet
if items of it could not be used. A part appears whole, once; whoever computes it, on whatever
machine, writes the same rows. What is not there is to do.

Shapes: S rows of the manifest, n rows of a part, F width.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np

from ..data.manifest import Manifest
from ..data.notes import counted, shown
from ..data.opening import is_file, reason
from ..errors import DataError
from ..runtime.extras import optional
from ..runtime.files import parse_json
from .arrow import KEY, from_arrow
from .embeddings import Embeddings
from .store import Store

Array = np.ndarray[Any, Any]
Precision = Literal["float32", "float16"]
FORMAT = 1
SIZE = 4096  # rows of a shard
PLAN, FAILED = "plan.json", "failed.json"
PART = re.compile(r"part-(\d{5,})\.parquet")
PINNED = ("manifest", "encoder", "view", "output", "precision", "shard_size")  # compared
COLUMNS = ("id", "hash", "vector", "label", "split")


@dataclass(frozen=True)
class Plan:
    """All that decides the vectors of a folder of shards.

    Attributes:
        manifest: hash of the manifest.
        encoder: hash of the weights of the encoder.
        view: how an item is read and seen: image_size, channels, fit, ...
        output: "features" or "embedding".
        precision: "float32" or "float16", of the stored vectors.
        shard_size: rows of a shard.
        rows: rows of the manifest.
        width: width F of a vector.
        about: names, which decide nothing: of the manifest and of the encoder.
    """

    manifest: str
    encoder: str
    view: Mapping[str, Any]
    output: str
    precision: str
    shard_size: int
    rows: int
    width: int
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def shards(self) -> int:
        """Number of shards."""
        return -(-self.rows // self.shard_size)

    @property
    def digest(self) -> str:
        """The hash of what is pinned; every part stores it."""
        pinned = json.dumps({n: getattr(self, n) for n in PINNED}, sort_keys=True)
        return hashlib.blake2b(pinned.encode(), digest_size=16).hexdigest()

    def rows_of(self, shard: int) -> tuple[int, int]:
        """The first row and the number of rows of a shard.

        Args:
            shard: its number, from 0.
        """
        first = shard * self.shard_size
        return first, min(self.shard_size, self.rows - first)


@dataclass(frozen=True)
class Done:
    """The result of a shard, as a worker reports it: about 100 bytes.

    Attributes:
        shard: its number.
        rows: vectors that were written.
        errors: items that could not be used.
        failure: why the shard could not be written; "": it was.
        seconds: it took.
    """

    shard: int
    rows: int = 0
    errors: int = 0
    failure: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Checked:
    """The result of checking a folder of shards.

    Attributes:
        rows: rows of the manifest.
        vectors: ids with a vector.
        errors: ids that could not be used, each in errors-*.parquet.
        problems: sentences; none of them: the folder is complete.
    """

    rows: int
    vectors: int
    errors: int
    problems: tuple[str, ...]


# the plan ----------------------------------------------------------------------------------------


def read_plan(store: Store) -> Plan | None:
    """The plan of a folder; None where there is none.

    Args:
        store: the folder.

    Raises:
        DataError: it is damaged, or of another version.
    """
    if not store.exists(PLAN):
        return None
    where = f"{store}/{PLAN}"
    try:
        found = parse_json(store.read(PLAN))
        version = found.pop("format")
        if version != FORMAT:
            raise DataError(
                f"{where} is of another version of tellapart (format {version}; this one reads "
                f"{FORMAT}): use that version, or name another --out"
            )
        plan = Plan(**found)
        for f in dataclasses.fields(Plan):
            kind = {"str": str, "int": int}.get(str(f.type), Mapping)
            if not isinstance(getattr(plan, f.name), kind):
                raise TypeError(f"{f.name} is {getattr(plan, f.name)!r}")
        if plan.shard_size < 1 or plan.rows < 1:
            raise ValueError("shard_size and rows must be 1 or more")
    except DataError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{where} is damaged ({error}); name another --out") from error
    return plan


def begin(store: Store, plan: Plan) -> Plan:
    """Write the plan of a folder, or check that it is this one.

    Args:
        store: the folder.
        plan: what is to be embedded.

    Returns:
        The plan of the folder.
    Raises:
        DataError: the folder has another plan (the message names the fields), or holds other
            files.
    """
    before = read_plan(store)
    if before is None:
        others = [name for name in store.names() if name != FAILED]
        if others:
            raise DataError(f"{store} holds other files ({shown(others)}); name another --out")
        text = json.dumps({"format": FORMAT, **dataclasses.asdict(plan)}, indent=1)
        store.create(PLAN, lambda file: file.write(text.encode()))
        before = read_plan(store) or plan  # another worker may have been faster
    require_same(store, before, plan)
    return before


def require_same(store: Store, before: Plan, plan: Plan) -> None:
    """Raise DataError, naming the fields, unless both plans pin the same.

    Args:
        store: the folder.
        before: its plan.
        plan: what is to be embedded.
    """
    for name in PINNED:
        old, new = getattr(before, name), getattr(plan, name)
        if old == new:
            continue
        name = name.replace("_", " ")
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            inner = next(n for n in [*old, *new] if old.get(n) != new.get(n))
            name, old, new = f"{name}.{inner}", old.get(inner), new.get(inner)
        raise DataError(
            f"{store} was begun with another {name} ({old}; now {new}): go on "
            "with that, or name another --out"
        )


# parts -------------------------------------------------------------------------------------------


def part_name(shard: int) -> str:
    """The name of the file of a shard.

    >>> part_name(17)
    'part-00017.parquet'
    """
    return f"part-{shard:05d}.parquet"


def errors_name(shard: int) -> str:
    """The name of the file of the items of a shard that could not be used."""
    return f"errors-{shard:05d}.parquet"


def write_part(
    store: Store,
    plan: Plan,
    shard: int,
    rows: Mapping[str, Sequence[Any]],
    vectors: Array,
    errors: Sequence[tuple[str, str]],
) -> bool:
    """Write the part of a shard, and before it the file of its errors.

    Args:
        store: the folder.
        plan: of the folder.
        shard: number of the shard.
        rows: id, hash, label and split of the n items.
        vectors: (n, F).
        errors: id and reason of each item that could not be used.

    Returns:
        Whether the part was written; False: another attempt was faster.
    Raises:
        DataError: it cannot be written.
    """
    pa = optional("pyarrow", "tables", "parquet")
    kind = pa.float16() if plan.precision == "float16" else pa.float32()
    flat = np.ascontiguousarray(vectors, np.dtype(plan.precision)).reshape(-1)
    lists = pa.FixedSizeListArray.from_arrays(pa.array(flat, kind), plan.width)
    named = {n: pa.array(rows[n], pa.string()) for n in ("id", "hash", "label", "split")}
    columns = {"id": named["id"], "hash": named["hash"], "vector": lists}
    columns |= {"label": named["label"], "split": named["split"]}
    facts = {
        "format": FORMAT, "plan": plan.digest, "shard": shard, "errors": len(errors),
        "provenance": provenance(plan),
    }  # fmt: skip
    table = pa.table(columns).replace_schema_metadata({KEY: json.dumps(facts).encode()})
    store.remove(errors_name(shard))
    if errors:
        names, reasons = zip(*errors, strict=True)
        bad = pa.table({"id": pa.array(names), "reason": pa.array(reasons)})
        store.create(errors_name(shard), lambda file: _write(bad, file))
    return store.create(part_name(shard), lambda file: _write(table, file))


def provenance(plan: Plan) -> dict[str, Any]:
    """The provenance of `Embeddings` that are read from the shards of a plan."""
    return {
        "made_by": plan.digest, "output": plan.output, "fingerprint": plan.manifest,
        "data": plan.about.get("data"), "encoder": plan.about.get("encoder"),
    }  # fmt: skip


def _write(table: Any, file: BinaryIO) -> None:
    parquet = optional("pyarrow", "tables", "parquet").parquet
    dictionary = [n for n in ("label", "split", "reason") if n in table.column_names]
    raw = io.BytesIO()
    parquet.write_table(table, raw, use_dictionary=dictionary)
    file.write(raw.getvalue())


def damage_of(store: Store, plan: Plan, shard: int) -> str:
    """The damage of the part of a shard, told from its footer; "" if there is none.

    Args:
        store: the folder.
        plan: of the folder.
        shard: number of the shard, whose part exists.
    """
    name = part_name(shard)
    parquet = optional("pyarrow", "tables", "parquet").parquet
    try:
        with store.open(name) as file:
            about = parquet.ParquetFile(file)
            facts = json.loads((about.schema_arrow.metadata or {})[KEY])
            rows = about.metadata.num_rows
            if (facts["plan"], facts["shard"]) != (plan.digest, shard):
                return f"{name} was written by another encoder or for another plan"
    except Exception as error:  # pyarrow raises many kinds on a file that is cut short
        return f"{name} is cut short or damaged ({reason(error)})"
    wanted = plan.rows_of(shard)[1]
    if rows + facts["errors"] != wanted:
        return f"{name} has {rows:,} vectors and {facts['errors']:,} errors of {wanted:,} rows"
    return ""


def to_do(store: Store, plan: Plan, *, of: tuple[int, int] = (0, 1)) -> tuple[list[int], list[str]]:
    """The shards without a part, and what is wrong with parts that are to be written again.

    Args:
        store: the folder. Damaged parts are removed.
        plan: of the folder.
        of: (worker, workers): shards of this worker of an array job.
    """
    worker, workers = of
    there = {int(m[1]) for name in store.names() if (m := PART.fullmatch(name))}
    wrong = []
    mine = range(worker, plan.shards, workers)
    for shard in sorted(there.intersection(mine)):
        if damage := damage_of(store, plan, shard):
            wrong.append(damage)
            store.remove(part_name(shard))
            there.discard(shard)
    return [shard for shard in mine if shard not in there], wrong


def write_failed(store: Store, failed: Sequence[Done]) -> None:
    """Write failed.json, or remove it if nothing failed.

    Args:
        store: the folder.
        failed: the shards that could not be written.
    """
    if not failed:
        store.remove(FAILED)
        return
    shards = [{"shard": done.shard, "reason": done.failure} for done in failed]
    text = json.dumps({"shards": shards}, indent=1)
    store.replace(FAILED, lambda file: file.write(text.encode()))


# reading -----------------------------------------------------------------------------------------


class Shards:
    """A folder of shards, open for reading.

    Args:
        place: path or url of the folder.

    Attributes:
        plan: what its vectors are.

    Raises:
        DataError: it is no such folder, or has no parts.
    """

    def __init__(self, place: str | Path) -> None:
        self.store = Store(place)
        plan = read_plan(self.store)
        if plan is None:
            raise DataError(f"{place} holds no shards: {PLAN} is missing")
        self.plan = plan
        self._parts = [n for n in self.store.names() if PART.fullmatch(n)]
        if not self._parts:
            raise DataError(f"{place} holds no vectors yet; embed writes them")
        missing = plan.shards - len(self._parts)
        if missing > 0:
            raise DataError(
                f"{place} is not complete: {counted(missing, 'shard')} of {plan.shards:,} are "
                "missing; run the same embed command again"
            )

    def batches(self, columns: Iterable[str] = COLUMNS, rows: int = SIZE) -> Iterator[Any]:
        """The rows of all parts as Arrow record batches.

        Args:
            columns: names of the columns.
            rows: rows of a batch, at most.

        Raises:
            DataError: a part is cut short or damaged.
        """
        for name in self._parts:
            yield from self._batches(name, list(columns), rows)

    def _batches(self, name: str, columns: list[str], rows: int) -> Iterator[Any]:
        parquet = optional("pyarrow", "tables", "parquet").parquet
        try:
            with self.store.open(name) as file:
                opened = parquet.ParquetFile(file)
                facts = json.loads((opened.schema_arrow.metadata or {})[KEY])
                if facts["plan"] != self.plan.digest:
                    raise DataError(f"{self.store}/{name} was written for another plan")
                yield from opened.iter_batches(rows, columns=columns, use_threads=False)
        except DataError:
            raise
        except Exception as error:  # as in damage_of
            raise DataError(
                f"{self.store}/{name} is cut short or damaged ({reason(error)}); the same embed "
                "command writes it again"
            ) from error

    def __len__(self) -> int:
        parquet = optional("pyarrow", "tables", "parquet").parquet
        total = 0
        for name in self._parts:
            with self.store.open(name) as file:
                total += parquet.read_metadata(file).num_rows
        return total

    def load(self) -> Embeddings:
        """All vectors in memory."""
        pa = optional("pyarrow", "tables")
        facts = json.dumps({"format": FORMAT, "provenance": provenance(self.plan)}).encode()
        batches = list(self.batches())
        table = pa.Table.from_batches([b.replace_schema_metadata(None) for b in batches])
        return from_arrow(table.replace_schema_metadata({KEY: facts}))


def is_shards(place: Any) -> bool:
    """Whether a path is a folder of shards.

    Args:
        place: a path.
    """
    return isinstance(place, str | Path) and is_file(Path(place) / PLAN)


def check(store: Store, plan: Plan, manifest: Manifest) -> Checked:
    """Compare every id of a folder of shards with its manifest, a shard at a time.

    Args:
        store: the folder.
        plan: of the folder.
        manifest: whose ids are unique.
    """
    parquet = optional("pyarrow", "tables", "parquet").parquet
    names = set(store.names())
    vectors = errors = 0
    problems = []
    missing = [s for s in range(plan.shards) if part_name(s) not in names]
    if missing:
        text = shown([part_name(s) for s in missing])
        problems.append(f"{counted(len(missing), 'part')} missing: {text}")
    for shard in sorted(set(range(plan.shards)) - set(missing)):
        if damage := damage_of(store, plan, shard):
            problems.append(damage)
            continue
        with store.open(part_name(shard)) as file:
            ids = parquet.read_table(file, columns=["id"])["id"].to_pylist()
        bad = []
        if errors_name(shard) in names:
            with store.open(errors_name(shard)) as file:
                bad = parquet.read_table(file, columns=["id"])["id"].to_pylist()
        vectors, errors = vectors + len(ids), errors + len(bad)
        wanted = manifest.table(*plan.rows_of(shard), ["id"])["id"].to_pylist()
        if sorted([*ids, *bad]) != sorted(map(str, wanted)):
            problems.append(f"{part_name(shard)} and its errors do not have the ids of its rows")
    if FAILED in names:
        problems.append(f"{FAILED} lists shards that could not be written")
    extra = [n for n in names if (m := PART.fullmatch(n)) and int(m[1]) >= plan.shards]
    if extra:
        problems.append(f"{counted(len(extra), 'part')} of no shard: {shown(sorted(extra))}")
    return Checked(plan.rows, vectors, errors, tuple(problems))
