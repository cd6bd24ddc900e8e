"""A run folder: the only code that reads or writes one. Every write is atomic, and the manifest comes last.

run.json            configuration, data, versions, hardware, status, heartbeat
metrics.jsonl       a line per logged step
checkpoints/        last.pt (all state), step-*.pt (the encoder alone, newest three), best-unlabelled.pt (an encoder),
                    shard-*.pt (a rank's rows)
encoder/            model.safetensors, config.json, preprocessor.json, README.md
embeddings/  eval.json  neighbours.png

Of several processes rank 0 writes, but for the shards.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors

from ..encoders import AnyEncoder
from ..errors import RunError
from ..runtime import distributed
from . import model_card

FORMAT = 1
KEPT = 3  # encoders kept beside the last full state
BEST = "best-unlabelled"  # the encoder that the label-free measures, or a few labels, liked best
Manifest = dict[str, Any]


class Run:
    """A run folder that exists.

    Attributes:
        path: its place. manifest: what run.json holds.
    """

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path, self.manifest = path, manifest

    @classmethod
    def create(cls, path: str | Path, manifest: Manifest) -> Run:
        """A new run in an empty or missing folder.

        Raises:
            RunError: the folder holds something, or cannot be written.
        """
        folder = Path(path)
        run = cls(folder, {"format": FORMAT, "status": "running"} | manifest)
        if distributed.is_main():
            require_new(folder)
            with _writing(folder):
                (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
            run.update()
        distributed.barrier()
        return run

    @classmethod
    def open(cls, path: str | Path) -> Run:
        """The run in a folder.

        Raises:
            RunError: no run there, a damaged manifest, or one of another format.
        """
        folder = Path(path)
        file = folder / "run.json"
        if not file.is_file():
            raise RunError(
                f"{folder} is not a run (it has no run.json); `tellapart train METHOD --out {folder}` makes one"
            )
        try:
            manifest = json.loads(file.read_text())
            found = manifest["format"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunError(f"{file} is damaged: {error}") from error
        if found != FORMAT:
            raise RunError(
                f"{folder} is a run of format {found}; this version reads format {FORMAT}"
            )
        return cls(folder, manifest)

    def update(self, **fields: Any) -> None:
        """Change fields of the manifest and write it with a fresh heartbeat."""
        self.manifest |= fields | {"heartbeat": round(time.time(), 1)}
        self.write_json("run.json", self.manifest)

    def write_json(self, name: str, value: Any) -> None:
        """Write a JSON file of the run."""
        if distributed.is_main():
            write_json(self.path / name, value)

    def read_json(self, name: str) -> Any | None:
        """A JSON file of the run, None where it is missing or damaged."""
        try:
            return json.loads((self.path / name).read_text())
        except (OSError, ValueError):
            return None

    # metrics ---------------------------------------------------------------------------------------------

    def append(self, row: dict[str, Any]) -> None:
        """Add a line to metrics.jsonl."""
        if not distributed.is_main():
            return
        with _writing(self.path), open(self.path / "metrics.jsonl", "a") as file:
            file.write(json.dumps(row) + "\n")

    def metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl; a last line cut short by a crash is left out."""
        rows = []
        with contextlib.suppress(OSError):
            for line in (self.path / "metrics.jsonl").read_text().splitlines():
                try:
                    rows.append(json.loads(line))
                except ValueError:
                    break
        return rows

    def cut_metrics(self, step: int) -> None:
        """Forget the lines after `step`: a continuation writes them again."""
        if not distributed.is_main():
            return
        kept = [json.dumps(r) + "\n" for r in self.metrics() if r["step"] <= step]
        _replace(self.path / "metrics.jsonl", lambda file: file.write("".join(kept).encode()))

    # checkpoints -----------------------------------------------------------------------------------------

    def save(
        self,
        state: dict[str, Any],
        encoder: AnyEncoder,
        description: dict[str, Any],
        shard: dict[str, torch.Tensor] | None = None,
    ) -> None:
        """Write a full state, the encoder beside it, and the encoder's own folder; every rank its shard, first."""
        folder, step = self.path / "checkpoints", state["step"]
        if shard:
            _replace(
                _shard(folder, step, distributed.rank(), distributed.world()),
                lambda file: torch.save(shard, file),
            )
            distributed.barrier()
        if not distributed.is_main():
            return
        with _writing(self.path):
            if (self.path / "metrics.jsonl").exists():
                with open(self.path / "metrics.jsonl", "rb+") as file:
                    os.fsync(file.fileno())  # a state never outlives the lines before it
        small = {"format": FORMAT, "step": step, "encoder": state["encoder"]}
        whole = state | {"shards": distributed.world() if shard else 0}
        _replace(folder / f"step-{step:08d}.pt", lambda file: torch.save(small, file))
        _replace(folder / "last.pt", lambda file: torch.save(whole, file))
        with _writing(self.path):
            for old in sorted(folder.glob("step-*.pt"))[:-KEPT]:
                old.unlink()
            for old in folder.glob("shard-*.pt"):
                if not old.name.startswith(f"shard-{step:08d}-"):
                    old.unlink()
        self.save_encoder(encoder, description, step)

    def load(self) -> dict[str, Any] | None:
        """The last full state, None where there is none; its sharded rows are those of this rank, whoever wrote them.

        Raises:
            RunError: it is damaged.
        """
        file = self.path / "checkpoints" / "last.pt"
        if not file.exists():
            return None
        try:
            state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
            found = state["format"]
            if state.get("shards"):
                state["objective"] |= _own_rows(file.parent, state["step"], state["shards"])
            else:
                for name in state.get("sharded", ()):
                    state["objective"][name] = state["objective"][name][
                        distributed.rank() :: distributed.world()
                    ]
        except Exception as error:  # a damaged file fails in many ways: zip, pickle, key, type
            raise RunError(
                f"{file} is damaged ({type(error).__name__}). Nothing was changed. Train again into another --out; "
                f"the encoders in {file.parent}/step-*.pt may still be whole"
            ) from error
        if found != FORMAT:
            raise RunError(
                f"{file} is a checkpoint of format {found}; this version reads format {FORMAT}"
            )
        return state

    def save_best(self, encoder: AnyEncoder, step: int, by: str, value: float) -> None:
        """Keep the encoder that was judged best so far, and say by what."""
        if distributed.is_main():
            small = {"format": FORMAT, "step": step, "encoder": encoder.state_dict()}
            _replace(self.path / "checkpoints" / f"{BEST}.pt", lambda file: torch.save(small, file))
        self.update(best={"step": step, "by": by, "value": value})

    def checkpoint(self, name: str) -> Path:
        """The file of a checkpoint: "best-unlabelled" of this run, or any file.

        Raises:
            RunError: it is not there.
        """
        file = self.path / "checkpoints" / f"{BEST}.pt" if name == BEST else Path(name)
        if not file.is_file():
            kept = sorted(p.name for p in (self.path / "checkpoints").glob("*.pt"))
            raise RunError(
                f"{file} is not there; {self.path / 'checkpoints'} holds: {', '.join(kept) or 'nothing'}"
            )
        return file

    # encoder ---------------------------------------------------------------------------------------------

    def save_encoder(
        self, encoder: AnyEncoder, description: dict[str, Any], step: int | None = None
    ) -> None:
        """Write encoder/: weights, how to build it, how to prepare an image, and a model card."""
        folder = self.path / "encoder"
        with _writing(folder):
            folder.mkdir(exist_ok=True)
        weights = {k: v.detach().cpu().contiguous() for k, v in encoder.state_dict().items()}
        preprocessor = model_card.preprocessor(self.manifest, description)
        card = model_card.model_card(self.manifest | {"step": step}, description)
        _replace(folder / "model.safetensors", lambda file: file.write(save_safetensors(weights)))
        _replace(
            folder / "preprocessor.json",
            lambda file: file.write(json.dumps(preprocessor, indent=1).encode()),
        )
        _replace(folder / "README.md", lambda file: file.write(card.encode()))
        _replace(
            folder / "config.json",
            lambda file: file.write(json.dumps(description, indent=1).encode()),
        )

    def encoder_files(self) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        """Read the files of `save_encoder`: description and weights.

        Raises:
            RunError: missing or damaged.
        """
        folder = self.path / "encoder"
        try:
            description = json.loads((folder / "config.json").read_text())
            return description, load_safetensors((folder / "model.safetensors").read_bytes())
        except FileNotFoundError as error:
            raise RunError(
                f"{self.path} has no encoder yet; `tellapart train ... --resume` goes on with it"
            ) from error
        except Exception as error:  # a damaged file fails in many ways
            raise RunError(f"{folder} is damaged: {error}") from error


def _shard(folder: Path, step: int, rank: int, ranks: int) -> Path:
    return folder / f"shard-{step:08d}-{rank:05d}-of-{ranks:05d}.pt"


def _own_rows(folder: Path, step: int, ranks: int) -> dict[str, torch.Tensor]:
    """This rank's rows from the shards of `ranks` writers: row j of writer r is instance r + ranks j."""
    parts = [
        torch.load(_shard(folder, step, r, ranks), map_location="cpu", weights_only=True, mmap=True)
        for r in range(ranks)
    ]
    own: dict[str, torch.Tensor] = {}
    for name in parts[0]:
        mine = torch.tensor(list(distributed.mine(sum(len(part[name]) for part in parts))))
        own[name] = parts[0][name].new_empty(len(mine), *parts[0][name].shape[1:])
        for r, part in enumerate(parts):
            here = mine % ranks == r
            own[name][here] = part[name][mine[here] // ranks]
    return own


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file, whole or not at all."""
    text = json.dumps(value, indent=1, allow_nan=False)
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    _replace(path, lambda file: file.write(text.encode()))


def require_new(folder: Path) -> None:
    """Raise RunError unless `folder` is missing or empty, or all that is there is what a run writes before run.json."""
    if folder.is_file():
        raise RunError(f"{folder} is a file; --out names a folder")
    try:
        begun, unfinished = folder / "checkpoints", ".run.json.part"
        there = (
            [entry for entry in folder.iterdir() if entry.name != unfinished]
            if folder.exists()
            else []
        )
        used = any(entry != begun or any(begun.iterdir()) for entry in there)
    except OSError as error:
        raise RunError(f"{folder} cannot be read: {error.strerror}") from error
    if used:
        raise RunError(
            f"{folder} is not empty; add --resume to continue the run in it, or give another --out"
        )


@contextlib.contextmanager
def _writing(place: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        hint = (
            "free some space"
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
            else "give another --out"
        )
        raise RunError(
            f"cannot write {place}: {error.strerror}; {hint}. What was saved before is whole"
        ) from error


def _replace(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """Write a file beside `path` and give it the name only once it is on the disk."""
    work = path.with_name(f".{path.name}.part")
    with _writing(path):
        try:
            with open(work, "wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(work, path)
        except RuntimeError as error:  # torch.save hides the reason of a failed write
            raise OSError(
                errno.ENOSPC, f"the file could not be written whole ({str(error).splitlines()[0]})"
            ) from error
        finally:
            with contextlib.suppress(OSError):
                work.unlink()
