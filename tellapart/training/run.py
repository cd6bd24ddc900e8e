"""A run folder. This module alone knows its paths; every file of it is written atomically.

run.json            configuration, data, versions, hardware, status, heartbeat, digest of every file
metrics.jsonl       one line per logged step
checkpoints/        last.pt (full training state), step-*.pt (the three newest encoders),
                    best-unlabelled.pt (the best encoder by the label-free criterion),
                    shard-*.pt (state of one rank)
encoder/            model.safetensors, config.json, preprocessor.json, README.md
embeddings/  eval.json  detection.json  report.html  neighbours.png  tensorboard/
.lock               the process that is training, while it is

Rank 0 writes all files except the shards. The files of a checkpoint are written under scratch
names, their digests are added to run.json next to the previous ones, and then they are renamed. If
the process is killed between two writes, run.json therefore holds the digest of every file.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor

from ..encoders import AnyEncoder
from ..errors import RunError
from ..runtime import distributed, files, schemas
from ..runtime.files import Scratch
from ..runtime.locks import Lock
from . import model_card

FORMAT = 1
KEPT = 3  # encoders kept in addition to the last full state
BEST = "best-unlabelled"
MOST_RANKS = 65_536
STATISTICS = "statistics."  # prefix of a rank's own BatchNorm statistics in its shard
PATIENCE = 30.0  # seconds to wait for another process that updates run.json
Manifest = dict[str, Any]
_HELD: dict[Path, Lock] = {}  # locks of this process by folder


class Run:
    """An existing run folder.

    Open it as a context manager when it was created or opened for training: the lock is released
    at the end of the block.

    Attributes:
        path: the folder.
        manifest: the contents of run.json.
    """

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path, self.manifest = path, manifest
        self._lock: Lock | None = None

    @classmethod
    def create(cls, path: str | Path, manifest: Manifest) -> Run:
        """Create a run in an empty or missing folder and lock it; called on every rank.

        Args:
            path: empty or missing folder.
            manifest: first contents of run.json.

        Raises:
            RunError: the folder holds something, is in use, or cannot be written.
        """
        folder = Path(path)
        run = cls(folder, {"format": FORMAT, "status": "running"} | manifest)

        def begin() -> None:
            require_new(folder)
            with files.words(folder, RunError):
                folder.mkdir(parents=True, exist_ok=True)
            run._take_lock()
            require_new(folder)
            run._clear()
            with files.words(folder, RunError):
                run.checkpoints.mkdir(exist_ok=True)
            run.update()

        _on_main(begin)
        return run

    @classmethod
    def open(cls, path: str | Path, *, for_training: bool = False) -> Run:
        """Open the run in a folder; with `for_training` on every rank.

        Args:
            path: the folder.
            for_training: lock the run for this process, and remove files of killed processes.

        Raises:
            RunError: no run in the folder, a damaged run.json, another format, or a run in use.
        """
        run = cls(Path(path), {})
        run.manifest = run._read_manifest()
        if for_training:
            _on_main(run._take_lock)
            run.manifest = run._read_manifest()
            if distributed.is_main():
                run._clear()
        return run

    def _clear(self) -> None:
        """Remove what a killed process left: scratch files, and the lock file of run.json."""
        for folder in (self.path, self.checkpoints, self.encoder_folder):
            files.remove_scratch(folder)
        lock = Lock(self.path / ".run.json.lock")
        if lock.path.exists() and lock.acquire():
            lock.release()

    @staticmethod
    def exists(path: str | Path) -> bool:
        """Return whether a folder holds a run.

        Args:
            path: the folder.
        """
        return (Path(path) / "run.json").is_file()

    def close(self) -> None:
        """Release the lock of a training."""
        if self._lock is not None:
            self._lock.release()
            _HELD.pop(self.path.resolve(), None)
            self._lock = None

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # paths -------------------------------------------------------------------------------------

    @property
    def checkpoints(self) -> Path:
        """Folder of checkpoints."""
        return self.path / "checkpoints"

    @property
    def encoder_folder(self) -> Path:
        """Folder of the encoder: weights, architecture, preprocessing, model card."""
        return self.path / "encoder"

    @property
    def embeddings_folder(self) -> Path:
        """Folder of stored vectors, the index and cached results of the explorer."""
        return self.path / "embeddings"

    @property
    def metrics_file(self) -> Path:
        """metrics.jsonl"""
        return self.path / "metrics.jsonl"

    @property
    def evaluation_file(self) -> Path:
        """eval.json"""
        return self.path / "eval.json"

    @property
    def detection_file(self) -> Path:
        """detection.json"""
        return self.path / "detection.json"

    @property
    def report_file(self) -> Path:
        """report.html"""
        return self.path / "report.html"

    @property
    def neighbours_file(self) -> Path:
        """neighbours.png, a contact sheet."""
        return self.path / "neighbours.png"

    @property
    def tensorboard_folder(self) -> Path:
        """Folder of TensorBoard events."""
        return self.path / "tensorboard"

    @property
    def last_file(self) -> Path:
        """checkpoints/last.pt"""
        return self.checkpoints / "last.pt"

    @property
    def step(self) -> int:
        """Steps taken at the last checkpoint."""
        return int(self.manifest.get("step", 0))

    @property
    def verdict(self) -> str:
        """The verdict on the training curves; "" before the end."""
        return str((self.manifest.get("verdict") or {}).get("sentence", ""))

    @property
    def _manifest_file(self) -> Path:
        return self.path / "run.json"

    # run.json ----------------------------------------------------------------------------------

    def update(self, **fields: Any) -> None:
        """Change fields of run.json and write it with a fresh heartbeat.

        Args:
            fields: new values by field; the others keep theirs.
        """

        def change(manifest: Manifest) -> None:
            manifest.update(fields)
            if "status" in fields:  # the training begins or ends
                self._note_metrics(manifest)

        self._change(change)

    def _change(self, change: Callable[[Manifest], Any]) -> None:
        """Apply a change to run.json as read from disk, because other processes write it too."""
        if not distributed.is_main() or "format" not in self.manifest:  # or no run, a bare folder
            change(self.manifest)
            return
        lock = Lock(self.path / ".run.json.lock")
        with files.words(self._manifest_file, RunError):
            held = lock.acquire(wait=PATIENCE)
        if not held:
            raise RunError(f"{self._manifest_file} is in use by {lock.holder()}; try again")
        try:
            if self._manifest_file.exists():
                self.manifest = self._read_manifest()
            change(self.manifest)
            self.manifest["heartbeat"] = round(time.time(), 1)
            files.write_json(self._manifest_file, self.manifest)
        finally:
            lock.release()

    def _read_manifest(self) -> Manifest:
        if not self._manifest_file.exists():
            raise RunError(
                f"{self.path} is not a run (it has no run.json); "
                f"`tellapart train METHOD --out {self.path}` makes one"
            )
        manifest = self._json(self._manifest_file)
        version = manifest.get("format") if isinstance(manifest, dict) else None
        if isinstance(version, int) and version != FORMAT:
            raise RunError(
                f"{self.path} is a run of format {version}; this version reads format {FORMAT}"
            )
        schemas.check_manifest(manifest, self._manifest_file)
        return dict(manifest)

    def _json(self, file: Path) -> Any:
        try:
            return files.read_json(file)
        except (OSError, ValueError) as error:
            raise RunError(f"{file} is damaged: {error}") from error

    def _take_lock(self) -> None:
        place = self.path.resolve()
        if place in _HELD:  # already trained in this process; locks work between processes only
            self._lock = _HELD[place]
            return
        lock = Lock(place / ".lock")
        with files.words(self.path, RunError):
            held = lock.acquire()
        if not held:
            raise RunError(
                f"{self.path} is in use by {lock.holder()}, which trains it; wait until it has "
                "ended, or give another --out"
            )
        self._lock = _HELD[place] = lock

    # digests -----------------------------------------------------------------------------------

    def _publish(
        self,
        staged: list[Scratch],
        *,
        others: dict[str, str] | None = None,
        change: Callable[[Manifest], Any] = lambda manifest: None,
    ) -> None:
        """Rename staged files so that run.json holds their digests at every moment.

        Args:
            staged: complete files under scratch names, in the order of renaming.
            others: digests by name of files written by other ranks.
            change: further changes of run.json, applied before the files are renamed.
        """
        digests = {self._name(s.path): s.sha256 for s in staged}

        def announce(manifest: Manifest) -> None:
            manifest["files_next"] = manifest.get("files_next", {}) | digests
            change(manifest)

        try:
            self._change(announce)
            for scratch in staged:
                scratch.commit()
        finally:
            for scratch in staged:
                scratch.discard()
        self._settle(digests | (others or {}))

    def _settle(self, digests: dict[str, str]) -> None:
        """Record the digests of renamed files, and drop those of deleted files."""

        def change(manifest: Manifest) -> None:
            known = manifest.get("files", {}) | digests
            manifest["files"] = {n: d for n, d in known.items() if (self.path / n).exists()}
            following = {
                n: d for n, d in manifest.get("files_next", {}).items() if n not in digests
            }
            manifest.pop("files_next", None)
            manifest |= {"files_next": following} if following else {}

        self._change(change)

    def _note_metrics(self, manifest: Manifest) -> None:
        with contextlib.suppress(OSError):
            raw = files.read_bytes(self.metrics_file)
            digest = hashlib.sha256(raw).hexdigest()
            manifest["metrics"] = {"bytes": len(raw), "sha256": digest}

    def _name(self, path: Path) -> str:
        return path.relative_to(self.path).as_posix()

    def _intact(self, path: Path, raw: bytes | None = None, *, remedy: str) -> None:
        """Compare a file with its digest in run.json; runs of older versions have no digests.

        Raises:
            RunError: the file differs.
        """
        name = self._name(path)
        known = {self.manifest.get(part, {}).get(name) for part in ("files", "files_next")} - {None}
        if not known:
            return
        digest = files.sha256(path) if raw is None else hashlib.sha256(raw).hexdigest()
        if digest not in known:
            raise RunError(
                f"{path} is damaged: its SHA-256 is not that of run.json. Nothing was changed. "
                f"{remedy}"
            )

    def verify(self) -> list[str]:
        """Compare every file with its digest in run.json.

        Returns:
            The names of the compared files.

        Raises:
            RunError: a file is missing or differs.
        """
        known = self.manifest.get("files", {})
        for name in known:
            with _reading(self.path / name):
                self._intact(self.path / name, remedy="Restore it from a copy")
        self.metrics()
        return sorted(known)

    # results -----------------------------------------------------------------------------------

    def evaluation(self) -> dict[str, Any] | None:
        """Return the contents of eval.json, None if there is none.

        Raises:
            RunError: it is damaged, or a field has the wrong type or is out of range.
        """
        result = self._result(self.evaluation_file)
        if result is not None:
            schemas.check_evaluation(result, self.evaluation_file)
        return result

    def detection(self) -> dict[str, Any] | None:
        """Return the contents of detection.json, None if there is none.

        Raises:
            RunError: it is damaged.
        """
        result = self._result(self.detection_file)
        if result is not None:
            schemas.check(result, schemas.Detection, self.detection_file)
        return result

    def save_evaluation(self, result: dict[str, Any]) -> None:
        """Write eval.json.

        Args:
            result: the result of `tellapart.evaluate`.
        """
        self._save_result(self.evaluation_file, result)

    def save_detection(self, result: dict[str, Any]) -> None:
        """Write detection.json.

        Args:
            result: the result of `tellapart.detect`.
        """
        self._save_result(self.detection_file, result)

    def _result(self, file: Path) -> dict[str, Any] | None:
        if not file.exists():
            return None
        content = self._json(file)
        if not isinstance(content, dict):
            raise RunError(f"{file}: expected object; `tellapart eval {self.path}` makes it again")
        self.manifest = self._read_manifest()
        self._intact(file, remedy=f"`tellapart eval {self.path}` makes it again")
        return content

    def _save_result(self, file: Path, result: dict[str, Any]) -> None:
        text = json.dumps(result, indent=1, allow_nan=False)
        self._publish([files.stage(file, lambda out: out.write(text.encode()))])

    # metrics -----------------------------------------------------------------------------------

    def append(self, row: dict[str, Any]) -> None:
        """Add a line to metrics.jsonl.

        Args:
            row: metrics of a step by name, with "step".
        """
        if distributed.is_main():
            files.append(self.metrics_file, json.dumps(row))

    def metrics(self) -> list[dict[str, Any]]:
        """Return the lines of metrics.jsonl, without a last line that is incomplete.

        Raises:
            RunError: a line from before the last checkpoint has changed, or a field is no number.
        """
        return [row for _, row in self._metrics()]

    def cut_metrics(self, step: int) -> None:
        """Remove the lines after a step, which the resumed training writes again.

        Args:
            step: the last step to keep.
        """
        if not distributed.is_main() or not self.metrics_file.exists():
            return
        kept = b"".join(line + b"\n" for line, row in self._metrics() if row["step"] <= step)
        self._change(lambda manifest: manifest.pop("metrics", None))
        files.write(self.metrics_file, lambda file: file.write(kept))

    def _metrics(self) -> list[tuple[bytes, dict[str, Any]]]:
        if not self.metrics_file.exists():
            return []
        prefix = self._read_manifest().get("metrics")  # read again: a training may be running
        with _reading(self.metrics_file):
            raw = files.read_bytes(self.metrics_file)
        if prefix:
            digest = hashlib.sha256(raw[: prefix["bytes"]]).hexdigest()
            if len(raw) < prefix["bytes"] or digest != prefix["sha256"]:
                raise RunError(
                    f"{self.metrics_file} is damaged: lines from before the last checkpoint have "
                    "changed. Restore it from a copy"
                )
        rows: list[tuple[bytes, dict[str, Any]]] = []
        for number, line in enumerate(raw.split(b"\n"), 1):
            try:
                row = files.parse_json(line, finite=False)
            except ValueError:
                break
            if not isinstance(row, dict) or "step" not in row:
                break
            schemas.check_metrics(row, f"{self.metrics_file}: line {number}")
            rows.append((line, row))
        return rows

    # checkpoints -------------------------------------------------------------------------------

    def save(
        self,
        state: dict[str, Any],
        encoder: AnyEncoder,
        description: dict[str, Any],
        shard: dict[str, Tensor] | None = None,
    ) -> None:
        """Write a checkpoint: the full state, the encoder, and the folder encoder/.

        Args:
            state: from `Trainer.state`.
            encoder: the encoder to write.
            description: architecture of the encoder.
            shard: state of this rank; every rank writes its own first.
        """
        step = state["step"]
        own: dict[str, str] = {}
        if shard:
            file = _shard(self.checkpoints, step, distributed.rank(), distributed.world())
            own = {self._name(file): files.write(file, lambda out: torch.save(shard, out))}
        shards = {name: d for part in distributed.gather_objects(own) for name, d in part.items()}
        if not distributed.is_main():
            return
        files.sync(self.metrics_file)  # metrics reach the disk before the state
        small = {"format": FORMAT, "step": step, "encoder": state["encoder"]}
        whole = state | {"shards": distributed.world() if shards else 0}
        contents: dict[Path, Callable[[Any], Any]] = {
            self.checkpoints / f"step-{step:08d}.pt": lambda out: torch.save(small, out),
            self.last_file: lambda out: torch.save(whole, out),
        }
        contents |= self._encoder_contents(encoder, description, step)
        self._publish_contents(contents, others=shards, change=self._note_metrics)
        self._remove_old(step)

    def restore(self, step: int, encoder: AnyEncoder, description: dict[str, Any]) -> None:
        """Complete a checkpoint whose writing was interrupted after last.pt.

        Args:
            step: the step of last.pt.
            encoder: the encoder in the state of last.pt.
            description: architecture of the encoder.
        """
        if not distributed.is_main():
            return
        if not self.encoder_is_intact():
            self._publish_contents(self._encoder_contents(encoder, description, step))
        self._remove_old(step)

    def encoder_is_intact(self) -> bool:
        """Return whether every file of encoder/ has the digest in run.json."""
        known = self.manifest.get("files", {})
        if self.manifest.get("files_next"):
            return False
        names = ("model.safetensors", "preprocessor.json", "README.md", "config.json")
        for file in (self.encoder_folder / name for name in names):
            wanted = known.get(self._name(file))
            if not file.is_file() or (wanted and files.sha256(file) != wanted):
                return False
        return True

    def _publish_contents(self, contents: dict[Path, Callable[[Any], Any]], **how: Any) -> None:
        """Stage the files that `contents` writes, and publish them together."""
        staged: list[Scratch] = []
        try:
            for path, fill in contents.items():
                staged.append(files.stage(path, fill))
        except BaseException:
            for scratch in staged:
                scratch.discard()
            raise
        self._publish(staged, **how)

    def _remove_old(self, step: int) -> None:
        """Remove all but the newest encoders, and the shards of other steps."""
        old = sorted(self.checkpoints.glob("step-*.pt"))[:-KEPT]
        old += [
            file
            for file in self.checkpoints.glob("shard-*.pt")
            if not file.name.startswith(f"shard-{step:08d}-")
        ]
        with files.words(self.checkpoints, RunError):
            for file in old:
                file.unlink()
        following = self.manifest.get("files_next", {})
        settled = {
            name: digest
            for name, digest in following.items()
            if (self.path / name).is_file() and files.sha256(self.path / name) == digest
        }
        gone = any(not (self.path / name).exists() for name in self.manifest.get("files", {}))
        if old or following or gone:
            self._settle(settled)

    def load(self) -> dict[str, Any] | None:
        """Return the last full state, with the rows of this rank for any former number of ranks.

        Returns:
            The state for `Trainer.load_state`; "statistics" holds the BatchNorm statistics of this
            rank if the number of ranks is unchanged. None if there is no checkpoint.

        Raises:
            RunError: the checkpoint is damaged.
        """
        file = self.last_file
        if not file.exists():
            return None
        remedy = (
            f"Train again into another --out; the encoders in {self.checkpoints}/step-*.pt may "
            "still be whole"
        )
        self._intact(file, remedy=remedy)
        try:
            state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
            _check_state(state)
            version = state["format"]
            if shards := state.get("shards", 0):
                for r in range(shards):
                    shard = _shard(self.checkpoints, state["step"], r, shards)
                    self._intact(shard, remedy=remedy)
                rows, statistics = _own_rows(self.checkpoints, state["step"], shards)
                state["objective"] |= rows
                state["statistics"] = statistics
            else:
                for name in state.get("sharded", ()):
                    state["objective"][name] = state["objective"][name][
                        distributed.rank() :: distributed.world()
                    ]
        except RunError:
            raise
        except Exception as error:  # damaged files raise many kinds: zip, pickle, key, type
            raise RunError(
                f"{file} is damaged ({type(error).__name__}). Nothing was changed. {remedy}"
            ) from error
        if version != FORMAT:
            raise RunError(
                f"{file} is a checkpoint of format {version}; this version reads format {FORMAT}"
            )
        return state

    def save_best(self, encoder: AnyEncoder, step: int, by: str, value: float) -> None:
        """Keep the encoder that a criterion ranks best so far, and record the criterion.

        Args:
            encoder: the encoder to keep.
            step: its step.
            by: name of the criterion.
            value: value of the criterion.
        """
        if distributed.is_main():
            small = {"format": FORMAT, "step": step, "encoder": encoder.state_dict()}
            file = self.checkpoints / f"{BEST}.pt"
            self._publish_contents({file: lambda out: torch.save(small, out)})
        self.update(best={"step": step, "by": by, "value": value})

    def checkpoint(self, name: str) -> Path:
        """Return the file of a checkpoint.

        Args:
            name: best-unlabelled, or the path of any file of weights.

        Raises:
            RunError: there is no such file, or it is damaged.
        """
        file = self.checkpoints / f"{BEST}.pt" if name == BEST else Path(name)
        if not file.is_file():
            kept = sorted(p.name for p in self.checkpoints.glob("*.pt"))
            raise RunError(
                f"{file} does not exist; {self.checkpoints} holds: {', '.join(kept) or 'nothing'}"
            )
        if file.resolve().is_relative_to(self.path.resolve()):
            inner = self.path / file.resolve().relative_to(self.path.resolve())
            self._intact(inner, remedy="Use another checkpoint")
        return file

    # encoder -----------------------------------------------------------------------------------

    def _encoder_contents(
        self, encoder: AnyEncoder, description: dict[str, Any], step: int
    ) -> dict[Path, Callable[[Any], Any]]:
        """Return a writer for each file of encoder/."""
        weights = {k: v.detach().cpu().contiguous() for k, v in encoder.state_dict().items()}
        preprocessor = model_card.preprocessor(self.manifest, description)
        card = model_card.model_card(self.manifest | {"step": step}, description)
        folder = self.encoder_folder

        def text(value: str) -> Callable[[Any], Any]:
            return lambda out: out.write(value.encode())

        return {
            folder / "model.safetensors": lambda out: out.write(save_safetensors(weights)),
            folder / "preprocessor.json": text(json.dumps(preprocessor, indent=1)),
            folder / "README.md": text(card),
            folder / "config.json": text(json.dumps(description, indent=1)),
        }

    def save_encoder(self, encoder: AnyEncoder, description: dict[str, Any], step: int = 0) -> None:
        """Write only the folder encoder/.

        Args:
            encoder: the encoder to write.
            description: contents of its config.json.
            step: its step.
        """
        if distributed.is_main():
            self._publish_contents(self._encoder_contents(encoder, description, step))

    def has_encoder(self) -> bool:
        """Return whether a checkpoint has been written."""
        return (self.encoder_folder / "config.json").is_file()

    def description(self) -> dict[str, Any]:
        """Return the architecture of the encoder: the validated contents of encoder/config.json.

        Raises:
            RunError: the file is missing or damaged, or a field has the wrong type or is out of
                range.
        """
        file = self.encoder_folder / "config.json"
        if not file.exists():
            raise RunError(
                f"{self.path} has no encoder yet; `tellapart train ... --resume` continues it"
            )
        content = self._json(file)
        schemas.check_encoder(content, file)
        preprocessor = self.encoder_folder / "preprocessor.json"
        if preprocessor.exists():
            schemas.check(self._json(preprocessor), schemas.Preprocessor, preprocessor)
        self._intact(file, remedy="`tellapart train ... --resume` writes it again")
        return dict(content)

    def encoder_files(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return the description and the weights of the encoder.

        Raises:
            RunError: missing or damaged.
        """
        description, file = self.description(), self.encoder_folder / "model.safetensors"
        if not file.exists():
            raise RunError(
                f"{self.path} has no weights yet; `tellapart train ... --resume` continues it"
            )
        with _reading(file):
            raw = files.read_bytes(file)
        self._intact(file, raw, remedy="`tellapart train ... --resume` writes it again")
        try:
            return description, load_safetensors(raw)
        except Exception as error:  # damaged files raise many kinds of errors
            raise RunError(f"{file} is damaged: {error}") from error


def _check_state(state: Any) -> None:
    """Check the types of a full state, so that reading it cannot fail later.

    Raises:
        RunError: the value is not a training state.
    """
    kinds: dict[str, type | tuple[type, ...]] = {
        "format": int, "step": int, "encoder": dict, "objective": dict, "optimizer": dict,
    }  # fmt: skip
    if not isinstance(state, dict):
        raise RunError("last.pt: expected a dictionary")
    for name, kind in kinds.items():
        if not isinstance(state.get(name), kind) or isinstance(state.get(name), bool):
            raise RunError(
                f"last.pt is damaged: {name}: expected {getattr(kind, '__name__', kind)}"
            )
    for name in ("encoder", "objective"):
        if not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state[name].items()):
            raise RunError(f"last.pt is damaged: {name}: expected tensors by name")
    if not 0 <= state["step"] < 1 << 53:
        raise RunError("last.pt is damaged: step: out of range")
    shards, sharded = state.get("shards", 0), state.get("sharded", [])
    if isinstance(shards, bool) or not isinstance(shards, int) or not 0 <= shards <= MOST_RANKS:
        raise RunError("last.pt is damaged: shards: out of range")
    if not isinstance(sharded, list) or not all(isinstance(name, str) for name in sharded):
        raise RunError("last.pt is damaged: sharded: expected a list of names")


def _on_main(action: Callable[[], None]) -> None:
    """Run an action on rank 0; its RunError is raised on every rank."""
    failure: str | None = None
    if distributed.is_main():
        try:
            action()
        except RunError as error:
            if distributed.world() == 1:
                raise
            failure = str(error)
    if failure := distributed.share(failure):
        raise RunError(failure)


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror or error}") from error


def _shard(folder: Path, step: int, rank: int, ranks: int) -> Path:
    return folder / f"shard-{step:08d}-{rank:05d}-of-{ranks:05d}.pt"


def _own_rows(folder: Path, step: int, ranks: int) -> tuple[dict[str, Tensor], list[Tensor]]:
    """Return the rows of this rank from the shards of `ranks` ranks, and its BatchNorm statistics.

    Row j of rank r is item r + ranks * j. The statistics are available only if the number of ranks
    is unchanged.
    """
    parts = [
        torch.load(_shard(folder, step, r, ranks), map_location="cpu", weights_only=True, mmap=True)
        for r in range(ranks)
    ]
    own: dict[str, Tensor] = {}
    statistics: list[Tensor] = []
    for name in parts[0]:
        if name.startswith(STATISTICS):
            if ranks == distributed.world():
                statistics.append(parts[distributed.rank()][name].clone())
            continue
        mine = torch.tensor(list(distributed.mine(sum(len(part[name]) for part in parts))))
        own[name] = parts[0][name].new_empty(len(mine), *parts[0][name].shape[1:])
        for r, part in enumerate(parts):
            here = mine % ranks == r
            own[name][here] = part[name][mine[here] // ranks]
    return own, statistics


def require_new(folder: Path) -> None:
    """Check that a folder is missing or empty, except for files that a run writes before run.json.

    Args:
        folder: the folder of the new run.

    Raises:
        RunError: the folder holds other files, is a file, or cannot be read.
    """
    if folder.is_file():
        raise RunError(f"{folder} is a file; --out names a folder")
    try:
        used = folder.exists() and any(_counts(entry) for entry in folder.iterdir())
    except OSError as error:
        raise RunError(f"{folder} cannot be read: {error.strerror}") from error
    if used:
        raise RunError(
            f"{folder} is not empty; add --resume to continue the run in it, or give another --out"
        )


def _counts(entry: Path) -> bool:
    """Return whether a folder entry is something other than the remains of a killed process."""
    if entry.name == "checkpoints" and entry.is_dir():
        return any(entry.iterdir())
    return entry.name not in (".lock", ".run.json.lock") and not files.is_scratch(entry.name)
