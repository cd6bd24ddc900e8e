"""The commands of tellapart as Python functions, with the names and arguments of the command line.

The command line takes its options from the signatures and the `Args:` sections here. Nothing heavy
is imported before a function is called.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from .data.kinds import Data, given, kind_of
from .embeddings.choices import IndexKind, Wanted
from .errors import ConfigError, IncompleteError, require, unknown
from .runtime.console import Console, clock

if TYPE_CHECKING:
    from .embeddings import Embeddings
    from .training import loading
    from .training.config import CommonConfig
    from .training.request import Request


class Result(Mapping[str, Any]):
    """A frozen result that also reads as the dictionary that `--json` prints."""

    def to_dict(self) -> dict[str, Any]:
        """The result as a dictionary."""
        record: Any = self  # every result is a dataclass; this base is none
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(record)}

    def __getitem__(self, name: str) -> Any:
        return self.to_dict()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.to_dict())

    def __len__(self) -> int:
        return len(self.to_dict())

    def __or__(self, other: Mapping[str, Any]) -> dict[str, Any]:
        return self.to_dict() | dict(other)


@dataclass(frozen=True, eq=False)
class Trained(Result):
    """A finished training.

    Attributes:
        run: folder of the run.
        steps: number of optimizer steps of the run.
        trained: whether this call ran any of the steps.
        verdict: one sentence that says whether the encoder learned.
    """

    run: str
    steps: int
    trained: bool
    verdict: str


@dataclass(frozen=True, eq=False)
class Measured(Result):
    """Measurements as plain values, with the file that holds them.

    Attributes:
        verdict: the result in one sentence, empty if there is none.
        out: the file that was written, None if none was written.
        content: all measurements by name.
    """

    verdict: str
    out: Path | None
    content: Mapping[str, Any] = dataclasses.field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        return dict(self.content)


@dataclass(frozen=True, eq=False)
class Reported(Result):
    """A written HTML report.

    Attributes:
        out: the file.
        verdict: the first sentence of the page.
        sections: titles of its sections.
        bytes: size of the file.
    """

    out: str
    verdict: str
    sections: Sequence[str]
    bytes: int


@dataclass(frozen=True, eq=False)
class Exported(Result):
    """An encoder exported for use without tellapart.

    Attributes:
        out: the folder.
        files: names of the files in it.
        features: width F of the features.
        checked: largest difference from the features of the original encoder, by runtime.
        lost: accuracy lost by `fold_batchnorm` and `bf16`, measured on the data of the run.
    """

    out: str
    files: Sequence[str]
    features: int
    checked: Mapping[str, float]
    lost: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Listed(Result):
    """A written manifest.

    Attributes:
        out: the parquet file.
        rows: number of items.
        classes: number of labels; 0: the items have none.
        splits: split -> number of items.
        notes: what was left out, counted by kind.
    """

    out: str
    rows: int
    classes: int
    splits: Mapping[str, int]
    notes: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, eq=False)
class Sharded(Result):
    """A manifest embedded into a folder of shards, or a check of it.

    Attributes:
        out: the folder; `Embeddings.load` reads it.
        vectors: vectors that were written, or that a check found.
        errors: items that could not be used; errors-*.parquet name them.
        shards: shards that were written.
        kept: shards that were there before.
        checked: whether ids were compared with the manifest.
    """

    out: str
    vectors: int
    errors: int
    shards: int
    kept: int
    checked: bool


@dataclass(frozen=True, eq=False)
class Explored(Result):
    """A page served until Ctrl-C.

    Attributes:
        run: folder of the run.
    """

    run: str


@dataclass(frozen=True)
class Rows(Sequence[Any]):
    """A frozen list of results.

    Attributes:
        rows: of a search, for each query its neighbours, best first; of a comparison, one row for
            each run.
    """

    rows: tuple[Any, ...]

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Any, ...]: ...
    def __getitem__(self, index: int | slice) -> Any:
        return self.rows[index]

    def __len__(self) -> int:
        return len(self.rows)


def inspect(
    data: Data,
    *,
    method: str | None = None,
    encoder: Any = None,
    html: str | Path | None = None,
    apply: str | Path | None = None,
    label_level: str | None = None,
    fit: Literal["pad", "squeeze", "cut"] | None = None,
    range: tuple[float, float] | None = None,
    max_megapixels: float | None = None,
    piece: int | None = None,
    hop: int | None = None,
    columns: str | Mapping[str, str] | None = None,
    fps: float | None = None,
    verify: bool = False,
    console: Console | None = None,
) -> Measured:
    """Look for broken files, duplicates, leaks, outliers and wrong labels before a training.

    Nothing is ever deleted.

    Args:
        data: folder, list of paths, built-in data set or Python object, as for train --data.
        method: method whose defaults are shown; by default the usual one for this kind of data.
        encoder: run, timm/NAME or file of weights whose features find neighbours; by default the
            pixels do.
        html: page with thumbnails to write.
        apply: list of the items without their duplicates to write, for train --data.
        label_level: folder that is the label: top (default), last, or a level counted from 1.
        fit: images longer than 2:1: padded to a square (default), squeezed into it, or cut.
        range: values that become black and white in images of more than 8 bits; by default those of
            the folder.
        max_megapixels: bound on the memory of decoding an image, in pixels of 4 bytes; default 512.
        piece: steps of an item of a long series or sound; by default decided from the data.
        hop: steps from one item to the next; by default as many as --piece.
        columns: columns of a table by their role, such as image=file,label=kind; by default their
            usual names.
        fps: frames of each second of a video that become items; by default 1.
        verify: compare the cached copy of the data, and every source file, with their checksums.
        console: where progress is printed; None: standard error.

    Returns:
        Plain values; `verdict` is a sentence.
    """
    from .curation.inspect import inspect_source
    from .reports import dataset_report

    console = console or Console()
    reading = {
        "label_level": label_level, "fit": fit, "range": range, "max_megapixels": max_megapixels,
        "piece": piece, "hop": hop, "verify": verify or None,
    }  # fmt: skip
    seen = inspect_source(
        given(data, columns, fps),
        method=method,
        encoder=encoder,
        apply=Path(apply) if apply else None,
        reading={name: value for name, value in reading.items() if value is not None},
        console=console,
    )
    dataset_report.print_inspection(seen.result, console)
    if html:
        dataset_report.write_page(seen, Path(html), console)
    page = Path(html) if html else None
    return Measured(str(seen.result.get("verdict", "")), page, seen.result)


def train(
    method: Any = None,
    *,
    data: Data | None = None,
    out: str | Path,
    resume: bool = False,
    preset: str | None = None,
    config: CommonConfig | str | Path | None = None,
    columns: str | Mapping[str, str] | None = None,
    fps: float | None = None,
    console: Console | None = None,
    **options: Any,
) -> Trained:
    """Train an encoder on unlabelled data, into a run folder.

    Under torchrun every process calls this; each trains on its share of every batch, and rank 0
    prints and writes.

    Args:
        method: instdisc, simclr, moco, spread, supcon, ... (all of them: `objectives.METHODS`); by
            default that of the file, or the recommended one for the data; or an objective of your
            own: a class, a function of two embeddings, or module:name of one.
        data: folder, list of paths, .npy, .csv or built-in (digits, fashion-mnist, cifar10,
            scenes:NAME); in Python also an array, a tensor, a list, a data frame or a torch
            dataset.
        out: new folder of the run, or with --resume the run to continue.
        resume: continue the run in --out.
        preset: settings to start from; by default those for the method and the data.
        config: file of settings (YAML, or the run.json of a run), below single settings; in Python
            also a `TrainConfig` with all settings.
        columns: columns of a table by their role, such as image=file,label=kind; by default their
            usual names.
        fps: frames of each second of a video that become items; by default 1.
        console: where progress is printed; None: standard error.
        options: single settings by the names of the fields of the configuration, of its views and
            of the options of the method; `objective` may be a dict of the latter, `encoder` an
            `nn.Module` or what makes one, `views` a function of one image or of (batch,
            generator), or a list of such functions, one for each view.

    Raises:
        ConfigError: invalid settings; nothing is written.
        DataError: invalid data; nothing is written.
        RunError: `out` is in use, was trained with other settings, or cannot be written.
        TrainingError: the loss is not a number.
    """
    require(str(out) != "", "--out must name a folder")
    from .encoders import prepared
    from .evaluation import monitor
    from .runtime import distributed
    from .training import session

    asked = _asked(method, data, config, preset, columns, fps, options, Path(out), resume)

    # The lock of the run is held to the end of the training.
    with distributed.joined(), contextlib.ExitStack() as held:
        main = distributed.is_main()
        console = console if console and main else Console(quiet=not main)
        opened = session.start(
            asked.method,
            asked.data,
            Path(out),
            resume=resume,
            preset=asked.preset,
            config=asked.config,
            options=asked.options,
            console=console,
            held=held,
        )
        if opened.trainer is None:
            ended = opened.manifest
            verdict = (ended.get("verdict") or {}).get("sentence", "")
            return Trained(str(out), ended.get("step", 0), False, verdict)
        trainer = opened.trainer
        watch = monitor.Watch(
            opened.settings,
            prepared(trainer.encoder, opened.source),
            batch=trainer.batch,
            views_per_item=trainer.objective.views,
        )
        if asked.why:
            console.say(asked.why)
        run = session.begin(opened, Path(out), console, held)
        found = session.train_into(run, trainer, console, watch)
        console.say(f"{found.sentence}\n{clock(run.manifest['seconds'])} in {out}")
        return Trained(str(out), trainer.number, True, found.sentence)


def training_settings(
    method: Any = None,
    *,
    data: Data | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    preset: str | None = None,
    config: CommonConfig | str | Path | None = None,
    columns: str | Mapping[str, str] | None = None,
    fps: float | None = None,
    console: Console | None = None,
    **options: Any,
) -> str:
    """Return the settings of a training as YAML, which `config` takes; the data are not read.

    Args:
        method: as for `train`.
        data: as for `train`.
        out: as for `train`; only a resumed run is read there.
        resume: as for `train`.
        preset: as for `train`.
        config: as for `train`.
        columns: as for `train`.
        fps: as for `train`.
        console: not used.
        options: as for `train`.

    Raises:
        ConfigError: invalid settings.
    """
    from .training import config_file
    from .training.resolve import resolve

    place = Path(out) if out else None
    asked = _asked(method, data, config, preset, columns, fps, options, place, resume)
    settings = resolve(asked.method, asked.data, asked.preset, asked.config, asked.options)
    return config_file.text(asked.method, asked.data, settings)


def _asked(
    method: Any,
    data: Data | None,
    config: Any,
    preset: str | None,
    columns: Any,
    fps: float | None,
    options: dict[str, Any],
    out: Path | None,
    resume: bool,
) -> Request:
    """Return the method, data and settings of a training."""
    from .training import request

    asked = request.of(
        None if method is None else method_name(method),
        data,
        config=config,
        preset=preset,
        columns=columns,
        fps=fps,
        options=options,
        resumed=out if resume else None,
    )
    if method is None:  # one of a file is registered too
        method_name(asked.method)
    return asked


def method_name(method: Any) -> str:
    """Return the name of a method, registering an objective of the user under its own name.

    Args:
        method: a name, or an objective as `train` takes it.

    Raises:
        ConfigError: it is not an objective.
    """
    from .runtime import plugins

    if isinstance(method, str) and not plugins.is_name(method):
        return method
    from .objectives import own

    return own.register(method)


def evaluate(
    subject: Any,
    *,
    data: Data | Sequence[str] | None = None,
    protocol: str = "eval-v2",
    full: bool = False,
    quick: bool = False,
    stage_dims: int = 1024,
    stage_rows: int = 10_000,
    checkpoint: str = "last",
    labels: str | Path | None = None,
    encoder: Any = None,
    width: int = 16,
    image_size: int | None = None,
    test: str | Path | None = None,
    columns: str | Mapping[str, str] | None = None,
    fps: float | None = None,
    out: str | Path | None = None,
    console: Console | None = None,
) -> Measured:
    """Score an encoder beside its baselines under a frozen protocol.

    With labels: weighted k-NN, a linear classifier and a few labels per class. Always: the geometry
    of the features, and whether the views of an item find each other; without labels that is all.

    Args:
        subject: run folder, timm/NAME, torchvision/NAME, file of weights, or embeddings (.npz,
            .parquet);
            also an `nn.Module`, or module:name of one.
        data: data to evaluate on, by default the run's own; several make a table of transfer.
            sts:FILE scores sentence pairs.
        protocol: the frozen protocol: eval-v2, or eval-v1 for scores that compare with older ones.
        full: also every stage, more labels, fine-tuning, and what the head discards; many minutes.
        quick: score a seeded sample of up to 1,000 items of each part, which the verdict states.
        stage_dims: with --full, values that the feature map of a stage is pooled to, at most.
        stage_rows: with --full, training items that the classifier of a stage is fitted to, at
            most.
        checkpoint: of a run, last, best-unlabelled, or a file of weights.
        labels: file of id,label lines; evaluate on these items.
        encoder: architecture of a file of weights, if it cannot be inferred; of a run with a
            network of your own, that network or module:name.
        width: base width of a small-resnet in a file of weights.
        image_size: side of a view in pixels; by default the run's, or decided from the images.
        test: for embeddings, those of a test part.
        columns: columns of a table by their role, such as image=file,label=kind; by default their
            usual names.
        fps: frames of each second of a video that become items; by default 1.
        out: file of the result; by default eval.json in the run, else in this folder.
        console: where progress is printed; None: standard error.

    Returns:
        What the file holds; `verdict` is a sentence.
    """
    from .evaluation import evaluate as evaluation
    from .evaluation import protocol as protocols
    from .evaluation import verdicts
    from .reports.tables import print_table
    from .runtime import files
    from .training import loading

    protocols.checked(protocol)
    console = console or Console()

    # a library network is adapted to the channels of each source
    def open_again() -> loading.Subject:
        return loading.open_subject(
            subject,
            checkpoint=checkpoint,
            encoder=encoder,
            width=width,
            image_size=image_size,
            kind=kind_of(sources[0] or ""),
        )

    sources = _sources(data, columns, fps)
    run: Any = None
    if loading.is_embeddings(subject):
        if sources[0] or labels or image_size or encoder or quick or checkpoint != "last":
            raise ConfigError("embeddings accept only --test, --full, --protocol and --out")
        result = evaluation.evaluate_vectors(subject, test, full=full, name=protocol)
    else:
        opened = open_again()
        run = opened.run
        if test:
            raise ConfigError("--test is for embeddings (.npz, .parquet); name images with --data")
        results = {
            name or "its own data": evaluation.evaluate_subject(
                opened if len(sources) == 1 else open_again(),
                name,
                name=protocol,
                image_size=image_size,
                labels=labels,
                checkpoint=checkpoint,
                full=full,
                quick=quick,
                console=console,
                stage_dims=stage_dims,
                stage_rows=stage_rows,
            )
            for name in sources
        }
        result = next(iter(results.values()))
        if len(results) > 1:
            result = {
                "protocol": protocol,
                "transfer": results,
                "verdict": verdicts.transfer(results),
            }
    file = Path(out) if out else run.evaluation_file if run else Path("eval.json")
    if out or run is None:
        files.write_json(file, result)
    else:
        run.save_evaluation(result)
    print_table(result, console)
    return Measured(result["verdict"], file, result)


def detect(
    subject: str | Path,
    *,
    data: str = "scenes:fashion-mnist",
    preset: str = "scenes",
    checkpoint: str = "last",
    encoder: Any = None,
    width: int = 16,
    supervised: bool = True,
    out: str | Path | None = None,
    console: Console | None = None,
    **options: Any,
) -> Measured:
    """Train a detector on the encoder and on random weights, and score both.

    Args:
        subject: run folder, timm/NAME, torchvision/NAME, or file of weights.
        data: coco:FOLDER, voc:FOLDER, scenes:digits or scenes:fashion-mnist.
        preset: scenes, voc07 or voc07-instdisc.
        checkpoint: of a run, last, best-unlabelled, or a file of weights.
        encoder: architecture of a file of weights, if it cannot be inferred; of a run with a
            network of your own, that network or module:name.
        width: base width of a small-resnet in a file of weights.
        supervised: also on the same network trained with the labels of the run's own data.
        out: file of the result; by default detection.json in the run, else in this folder.
        console: where progress is printed; None: standard error.
        options: single settings by the names of the fields of `DetectConfig`.
    """
    from .training.presets.detection import PRESETS

    if preset not in PRESETS:
        raise unknown("preset", preset, PRESETS)
    config = dataclasses.replace(PRESETS[preset](), **options)
    from .data.detection import open_boxes
    from .evaluation import compare_detectors
    from .runtime import files
    from .training import loading

    console = console or Console()
    opened = loading.open_subject(subject, checkpoint=checkpoint, encoder=encoder, width=width)
    result = compare_detectors.compare_as_backbones(
        opened, open_boxes(data), config, supervised=supervised, console=console
    )
    own = opened.run.detection_file if opened.run else Path("detection.json")
    file = Path(out) if out else own
    if out or opened.run is None:
        files.write_json(file, result)
    else:
        opened.run.save_detection(result)
    compare_detectors.print_detection(result, console)
    return Measured(str(result.get("verdict", "")), file, result)


def compare(runs: Sequence[str | Path], *, console: Console | None = None) -> Rows:
    """Show runs side by side: cost, loss, and scores with their intervals.

    Args:
        runs: folders of runs; scores are there once `eval` has scored the run.
        console: where the table is printed; None: standard error.

    Returns:
        A row for each run.
    """
    from .reports import compare as comparison
    from .training.run import Run

    if not runs:
        raise ConfigError("name the runs to compare: tellapart compare RUN RUN ...")
    rows = comparison.side_by_side([Run.open(run) for run in runs])
    comparison.print_comparison(rows, console or Console())
    return Rows(tuple(rows))


def manifest(
    data: str | Path,
    *,
    out: str | Path,
    label_level: str = "top",
    console: Console | None = None,
) -> Listed:
    """Write the manifest of a set of images of any size: id, uri, label and split of each.

    Args:
        data: folder of images or of .tar archives, or its url (s3://bucket/photos/).
        out: .parquet file to write.
        label_level: folder that is the label: top (default), last, or a level counted from 1.
        console: where progress is printed; None: standard error.
    """
    from .data import manifest_writing

    console = console or Console()
    written = manifest_writing.write(data, out, label_level=label_level)
    for one in written.notes:
        console.say(one["text"])
    labels = f", {written.classes:,} classes" if written.classes else ""
    console.say(f"{written.rows:,} images{labels} in {out}")
    return Listed(
        str(out), written.rows, written.classes, dict(written.splits), tuple(written.notes)
    )


def embed(
    subject: Any,
    *,
    out: str | Path,
    data: Data | None = None,
    output: Wanted = "features",
    checkpoint: str = "last",
    encoder: Any = None,
    width: int = 16,
    image_size: int | None = None,
    map: Literal["pca", "umap"] | None = None,
    columns: str | Mapping[str, str] | None = None,
    fps: float | None = None,
    precision: Literal["float32", "float16"] = "float32",
    shard_size: int | None = None,
    workers: str | int = 1,
    worker: str | None = None,
    check: bool = False,
    console: Console | None = None,
) -> Embeddings | Sharded:
    """Embed data with any network; a second run embeds only new files.

    A manifest (`tellapart manifest`) of any size is embedded into a folder of shards, which
    several processes or machines can share.

    Args:
        subject: run folder, timm/NAME, torchvision/NAME, or file of weights; also an `nn.Module`,
            or module:name of one.
        out: .npz or .parquet file, or a folder whose vectors can be memory-mapped; of a manifest
            a folder of shards, also a url (s3://bucket/vectors).
        data: data to embed; by default the run's own.
        output: features are what to use; embedding is the space of the loss; patches is a vector
            for each place of the last map.
        checkpoint: of a run, last, best-unlabelled, or a file of weights.
        encoder: architecture of a file of weights, if it cannot be inferred; of a run with a
            network of your own, that network or module:name.
        width: base width of a small-resnet in a file of weights.
        image_size: side of a view in pixels; by default the run's, or decided from the images.
        map: add the columns x, y and neighbours to a .parquet file, for embedding-atlas.
        columns: columns of a table by their role, such as image=file,label=kind; by default their
            usual names.
        fps: frames of each second of a video that become items; by default 1.
        precision: of a manifest, type of the stored vectors.
        shard_size: of a manifest, rows of a shard; by default 4,096.
        workers: of a manifest, number of processes, or ray (all cores or GPUs of a Ray cluster).
        worker: of a manifest, I/N: embed the shards of one of N elements of an array job.
        check: of a manifest, compare its ids with those in --out instead of embedding.
        console: where progress is printed; None: standard error.

    Returns:
        The vectors, with ids, labels and provenance; of a manifest `Sharded`.
    Raises:
        IncompleteError: shards of a manifest could not be written, or `check` found a problem.
    """
    require(str(out) != "", "--out must name an .npz or .parquet file or a folder")
    sharded = check or worker is not None or str(workers) != "1" or shard_size is not None
    if _is_sharded(data, out, asked=sharded or precision != "float32"):
        require(
            map is None and columns is None and fps is None,
            "--map, --columns and --fps do not go with a manifest",
        )
        about = {"checkpoint": checkpoint, "encoder": encoder, "width": width}
        return _embed_manifest(
            subject, str(data), str(out), check, console or Console(), output=output,
            precision=precision, shard_size=shard_size, workers=str(workers), worker=worker,
            image_size=image_size, **about,
        )  # fmt: skip
    require(map is None or Path(out).suffix == ".parquet", "--map goes with --out FILE.parquet")
    from .embeddings import arrow, incremental
    from .embeddings.embeddings import require_writable
    from .training import loading

    console = console or Console()
    require_writable(out)
    where = _given(data, columns, fps)
    opened = loading.open_subject(
        subject,
        checkpoint=checkpoint,
        encoder=encoder,
        width=width,
        image_size=image_size,
        kind=kind_of(where or ""),
    )
    vectors, kept = incremental.embed_subject(opened, where, output, Path(out), image_size, console)
    if map is None:
        vectors.save(out)
    else:
        from .reports.explorer.state import principal_map, umap_map

        points = (umap_map if map == "umap" else principal_map)(vectors.vectors)
        arrow.save(vectors, Path(out), arrow.map_columns(vectors, points))
    reused = f"; {kept:,} of them were there before" if kept else ""
    console.say(f"{len(vectors):,} vectors of {vectors.vectors.shape[1]} values in {out}{reused}")
    return vectors


def _is_sharded(data: Data | None, out: str | Path, *, asked: bool) -> bool:
    """Whether data are a manifest that is embedded into a folder of shards.

    Raises:
        ConfigError: an option of manifests was given with other data or another --out.
    """
    suffix = Path(out).suffix
    to_file = suffix in (".npz", ".parquet") and "://" not in str(out)
    named = isinstance(data, str | Path)
    if not asked and (to_file or not named):
        return False
    from .data import manifest as manifests

    if named and not to_file and (manifests.is_manifest(str(data)) or asked):
        require(
            Path(str(data)).suffix.lower() in (".parquet", ".pq"),
            f"{data} is not a manifest; make one: tellapart manifest {data} --out list.parquet",
        )
        return True
    require(
        not asked,
        "--workers, --worker, --check, --shard-size and --precision need --data MANIFEST.parquet "
        "and --out FOLDER",
    )
    return False


def _embed_manifest(
    subject: Any, data: str, out: str, check: bool, console: Console, **options: Any
) -> Sharded:
    """Embed a manifest, or check the folder that it was embedded into."""
    from .embeddings import couriers

    if check:
        seen = couriers.check_folder(data, out, console)
        if seen.problems:
            raise IncompleteError(f"{out} is not complete: {'; '.join(seen.problems[:3])}")
        return Sharded(out, seen.vectors, seen.errors, 0, 0, True)
    made = couriers.embed_manifest(subject, data, out, console=console, **options)
    bad = f"; {made.errors:,} that could not be used in errors-*.parquet" if made.errors else ""
    kept = f"; {made.there:,} shards were there before" if made.there else ""
    console.say(f"{made.vectors:,} vectors of {made.plan.width} values in {out}{bad}{kept}")
    return Sharded(out, made.vectors, made.errors, made.done, made.there, False)


def search(
    run: Any,
    queries: Sequence[str | Path],
    *,
    data: Data | None = None,
    k: int = 10,
    threshold: float = -1.0,
    index: IndexKind = "exact",
    sheet_path: str | Path | None = None,
    encoder: Any = None,
    width: int = 16,
    image_size: int | None = None,
    console: Console | None = None,
) -> Rows:
    """Find the items that are most similar to each query.

    Args:
        run: a run folder, timm/NAME, torchvision/NAME, a file of weights, or vectors (.npz,
            .parquet).
        queries: files of the kind of the data, sentences, or ids of items; of vectors only ids.
        data: items to search; by default the run's own. Other encoders require it.
        k: neighbours of each query.
        threshold: least cosine similarity of a neighbour, -1 to 1.
        index: exact, or an approximate index of FAISS, built once and kept in the run.
        sheet_path: picture to write: queries and their neighbours.
        encoder: architecture of a file of weights, if it cannot be inferred; of a run with a
            network of your own, that network or module:name.
        width: base width of small-resnet in a file of weights.
        image_size: side of a view in pixels.
        console: where progress is printed; None: standard error.

    Returns:
        For each query its neighbours, best first: {"id", "similarity", "percentile",
        "random_pairs", "label"}; sentences also have "text", sounds and series "file", "begin",
        "end" and "unit". "percentile" is the share of random pairs that are less similar, %.
    """
    if not queries:
        raise ConfigError("name what to look for: tellapart search RUN QUERY [QUERY ...]")
    from .embeddings import collection
    from .embeddings import search as searching
    from .reports import contact_sheet
    from .training import loading

    console = console or Console()
    items = collection.open_collection(
        run, _given(data), encoder=encoder, width=width, image_size=image_size, console=console
    )
    source = items.source
    images = loading.images_of(source, "--sheet") if sheet_path else None
    rows = {name: row for row, name in enumerate(source.ids)}
    found = [items.query(query, rows) for query in queries]
    near = collection.find(items, found, k=k, threshold=threshold, kind=index, console=console)
    if sheet_path and images is not None:
        pictures = [
            (
                searching.picture(images, query.batch)
                if query.batch is not None
                else images.image(query.row or 0),
                [images.image(rows[one["id"]]) for one in best],
            )
            for query, best in zip(found, near, strict=True)
        ]
        captions = [[f"{one['similarity']:.2f}" for one in best] for best in near]
        contact_sheet.save(contact_sheet.draw(pictures, captions=captions), sheet_path)
        console.say(f"picture: {sheet_path}")
    return Rows(tuple(near))


def report(
    run: Any,
    *,
    data: Data | None = None,
    out: str | Path | None = None,
    encoder: Any = None,
    width: int = 16,
    image_size: int | None = None,
    console: Console | None = None,
) -> Reported:
    """Write one self-contained HTML file: verdict, scores, curves, neighbours, provenance.

    Args:
        run: a run folder, timm/NAME, torchvision/NAME, a file of weights, or vectors (.npz,
            .parquet). Scores are in the page once `eval` has scored the run.
        data: items to show; by default the run's own. Other encoders require it.
        out: the file; by default report.html in the run, else in this folder.
        encoder: architecture of a file of weights, if it cannot be inferred; of a run with a
            network of your own, that network or module:name.
        width: base width of small-resnet in a file of weights.
        image_size: side of a view in pixels.
        console: where progress is printed; None: standard error.
    """
    from .embeddings.collection import open_collection
    from .reports import run_report

    console = console or Console()
    items = open_collection(
        run, _given(data), encoder=encoder, width=width, image_size=image_size, console=console
    )
    own = items.run.report_file if items.run else Path("report.html")
    file = Path(out) if out else own
    written = run_report.write(items, file, console)
    return Reported(**{f.name: written[f.name] for f in dataclasses.fields(Reported)})


def explore(
    run: Any,
    *,
    data: Data | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
    browser: bool = False,
    encoder: Any = None,
    width: int = 16,
    image_size: int | None = None,
    console: Console | None = None,
) -> Explored:
    """Show items on a local page until Ctrl-C: a map, neighbours, search by dropping an image.

    Args:
        run: a run folder, timm/NAME, torchvision/NAME, a file of weights, or vectors (.npz,
            .parquet).
        data: items to show; by default the run's own. Other encoders require it.
        host: address to listen on; any other than this one lets other machines in.
        port: port to listen on; 0: a free one.
        browser: open the page in a browser.
        encoder: architecture of a file of weights, if it cannot be inferred; of a run with a
            network of your own, that network or module:name.
        width: base width of small-resnet in a file of weights.
        image_size: side of a view in pixels.
        console: where the address is printed; None: standard error.
    """
    from .reports.explorer import server

    about: dict[str, Any] = {"encoder": encoder, "width": width, "image_size": image_size}
    server.serve(
        run, host=host, port=port, data=_given(data), open_browser=browser, console=console, **about
    )
    return Explored(str(run))


def export(
    run: str | Path,
    *,
    out: str | Path,
    checkpoint: str = "last",
    onnx: bool = False,
    fold_batchnorm: bool = False,
    bf16: bool = False,
    console: Console | None = None,
) -> Exported:
    """Write an encoder as a folder that loads without tellapart.

    Args:
        run: folder of the run.
        out: new or empty folder of the encoder.
        checkpoint: last, best-unlabelled, or a file of weights of the same network.
        onnx: also model.onnx with any batch size, checked against torch.
        fold_batchnorm: fold each BatchNorm into the convolution before it; the k-NN accuracy lost
            is printed.
        bf16: weights in bfloat16, half the bytes; the k-NN accuracy lost is printed.
        console: where progress is printed; None: standard error.

    Raises:
        RunError: not a run, no encoder in it, or `out` is in use or cannot be written.
        ConfigError: no BatchNorm to fold.
        MissingExtraError: what ONNX needs is not installed.
        TellapartError: the written encoder computes something else.
    """
    require(str(out) != "", "--out must name a folder")
    from .exporters import export as exporter

    written = exporter.export(
        run,
        out=out,
        checkpoint=checkpoint,
        onnx=onnx,
        fold_batchnorm=fold_batchnorm,
        bf16=bf16,
        console=console,
    )
    return Exported(**written)


def load(run: str | Path, *, checkpoint: str = "last", encoder: Any = None) -> loading.Loaded:
    """Open a run for use: `load("runs/x").encoder.features(images)`.

    Args:
        run: folder of the run.
        checkpoint: last, best-unlabelled, or a file of weights of the same network.
        encoder: of a run with a network of your own, that network or module:name.
    """
    from .training import loading
    from .training.run import Run

    opened = Run.open(run)
    if encoder is not None:
        loading.remember_network(opened, encoder)
    return loading.Loaded(loading.load_encoder(opened, checkpoint), opened)


Shell = Literal["bash", "zsh", "tcsh"]


def _given(
    data: Data | None,
    columns: str | Mapping[str, str] | None = None,
    fps: float | None = None,
) -> str | None:
    """Return the data as a string, None if there are none.

    Raises:
        ConfigError: columns or fps without data.
    """
    require(
        data is not None or (columns is None and fps is None), "--columns and --fps need --data"
    )
    return None if data is None else given(data, columns, fps)


def _sources(
    data: Data | Sequence[str] | None,
    columns: str | Mapping[str, str] | None = None,
    fps: float | None = None,
) -> list[str | None]:
    """Return the sources of an evaluation: one for each name of a list, otherwise a single one.

    A list of paths of images or sounds is one source.
    """
    if not isinstance(data, list | tuple) or not data or not all(isinstance(d, str) for d in data):
        return [_given(data, columns, fps)]
    from .data.kinds import AUDIO, IMAGES

    if all(Path(name).suffix.lower() in IMAGES | AUDIO for name in data):
        return [given(data)]
    return [given(name, columns, fps) for name in data]
