"""What tellapart does, as Python functions with the names and arguments of the command line."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .curation.inspect import inspect_source
from .data import ImageSource
from .data.detection import open_boxes
from .data.files import is_file
from .embeddings import Embeddings, incremental
from .embeddings import search as searching
from .embeddings.index import Kind
from .encoders.inference import prepared
from .errors import ConfigError, unknown
from .evaluation import compare_detectors, detector, verdicts
from .evaluation import evaluate as judging
from .evaluation import protocol as frozen
from .evaluation.monitor import Watch
from .exporters.export import export as export  # a verb as it stands
from .reports import compare as comparison
from .reports import contact_sheet, dataset_report, run_report
from .reports.explorer import server
from .reports.tables import print_table
from .runtime import distributed
from .runtime.console import Console, clock
from .training import loading, session
from .training.config import CommonConfig
from .training.hardware import hardware
from .training.resolve import open_for, resolve, training_part
from .training.run import Run, require_new, write_json
from .training.trainer import Trainer


@dataclass(frozen=True)
class Trained:
    """A training that ended: its folder, how many steps it has, whether this call trained, and the verdict."""

    run: str
    steps: int
    trained: bool
    verdict: str


def inspect(
    data: str,
    *,
    method: str | None = None,
    encoder: str | None = None,
    html: str | Path | None = None,
    apply: str | Path | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """What is in a source before training on it: broken files, copies, leaks, outliers, odd labels, the defaults.

    Args:
        data: as `data.open_source`. method: whose defaults are shown; None: the usual one for this kind of data.
        encoder: a run, timm/NAME or a file of weights whose features find neighbours; None: the contents do.
        html: a page with thumbnails to write. apply: a new file that lists the items without their copies.
    Returns:
        Plain values; `verdict` is a sentence. Nothing is ever deleted.
    """
    console = console or Console()
    seen = inspect_source(
        data, method=method, encoder=encoder, apply=Path(apply) if apply else None, console=console
    )
    dataset_report.print_inspection(seen.result, console)
    if html:
        dataset_report.write_page(seen, Path(html), console)
    return seen.result


def train(
    method: str,
    *,
    data: str,
    out: str | Path,
    resume: bool = False,
    preset: str | None = None,
    config: CommonConfig | None = None,
    console: Console | None = None,
    **options: Any,
) -> Trained:
    """Train an encoder on unlabelled data, into a run folder.

    Args:
        method: one of `objectives.METHODS`: "instdisc", "simclr", "moco", "spread", "supcon", ...
        data: as `data.open_source`. out: a new or empty folder, or with `resume` the run to continue.
        preset: the settings to start from; by default those for the method and the data (`presets.name_for`).
        config: all settings at once, instead of a preset.
        options: single settings by the names of its fields; `objective` may be a dict of its options.
    Raises:
        ConfigError, DataError: bad settings or data, before anything is written.
        RunError: `out` is in use, was trained otherwise, or cannot be written.
        TrainingError: the loss is not a number.

    Under torchrun every process calls this; each trains on its share of every batch, and rank 0 speaks and writes.
    """
    with distributed.joined():
        said = (
            console
            if console and distributed.is_main()
            else Console(quiet=not distributed.is_main())
        )
        return _train(method, data, Path(out), resume, preset, config, options, said)


def _train(
    method: str,
    data: str,
    folder: Path,
    resume: bool,
    preset: str | None,
    config: CommonConfig | None,
    options: dict[str, Any],
    console: Console,
) -> Trained:
    resume = resume or int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0
    old = Run.open(folder) if resume and (folder / "run.json").exists() else None
    init = options.get("init", config.init if config else None)
    if old and init and (folder / "encoder" / "config.json").exists():
        options = options | {
            "init": str(folder)
        }  # the network stands in the run; where it came from may be gone
    settings = resolve(method, data, preset, config, options)
    if old is None and distributed.is_main():
        require_new(folder)
    with distributed.main_first():
        source = open_for(data, settings, console.progress)
    distributed.require_same("data", source.fingerprint)
    part = training_part(source, settings)
    wanted = session.manifest(
        method, dataclasses.replace(settings, init=init or settings.init), source, part
    )
    if old:
        session.check_same(old, wanted)
        if old.manifest["status"] == "finished":
            console.say(
                f"{folder} is finished ({old.manifest['step']:,} steps); nothing was changed"
            )
            return Trained(
                str(folder), old.manifest["step"], False, old.manifest["verdict"]["sentence"]
            )
        state = old.load()
    trainer = Trainer(method, settings, part)
    watch = Watch(
        settings,
        prepared(trainer.encoder, source),
        batch=trainer.batch,
        views_per_item=trainer.objective.views,
    )
    if old and state:
        trainer.load_state(state)
        console.say(f"going on with {folder} after step {trainer.number:,} of {trainer.total:,}")
    console.say(session.plan(trainer, trainer.seconds_per_step()))
    wanted |= {"hardware": hardware(trainer.machine), "steps": trainer.total}
    run = old or Run.create(folder, wanted)
    run.cut_metrics(trainer.number)
    run.update(status="running", hardware=wanted["hardware"], steps=trainer.total)
    found = session.train_into(run, trainer, console, watch)
    console.say(f"{found.sentence}\n{clock(run.manifest['seconds'])} in {folder}")
    return Trained(str(folder), trainer.number, True, found.sentence)


def evaluate(
    subject: str | Path,
    *,
    data: str | Sequence[str] | None = None,
    protocol: str = frozen.NAME,
    full: bool = False,
    quick: bool = False,
    stage_dims: int = 1024,
    stage_rows: int = 10_000,
    checkpoint: str = "last",
    labels: str | Path | None = None,
    encoder: str | None = None,
    width: int = 16,
    image_size: int | None = None,
    test: str | Path | None = None,
    out: str | Path | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Score an encoder beside its baselines under the frozen protocol, into eval.json.

    With labels: weighted kNN, a linear classifier and a few labels per class. Always: how the points lie, and whether
    views of one item find each other; without labels that is all, and the verdict says what it cannot tell.

    Args:
        subject: a run folder, timm/NAME, torchvision/NAME, a file of weights (of MoCo, DINO, lightly, solo-learn,
            VISSL, or plain), or embeddings (.npz).
        data: the source to judge it on, a run's own by default; several make a table of transfer.
        protocol: "eval-v2", or "eval-v1" for the earlier choices.
        full: also every stage, more labels, fine-tuning, and what the projection head discards.
        quick: score a seeded sample of up to 1,000 items of each part, which the verdict states.
        stage_dims, stage_rows: with `full`, values that a stage's map is pooled to, and items that its classifier is
            fitted to, at most.
        checkpoint: of a run, "last", "best-unlabelled" or a file. labels: a file of `id,label` that is judged on.
        encoder, width: the network of a file of weights, where it does not tell. image_size: side of a view, pixels.
        test: embeddings to judge embeddings on. out: the file; by default eval.json in the run, else in this folder.
    Returns:
        What the file holds; `verdict` is a sentence.
    """
    frozen.checked(protocol)
    console = console or Console()

    def opened_anew() -> (
        loading.Subject
    ):  # for each source: a network of others takes on its channels
        return loading.open_subject(
            subject, checkpoint=checkpoint, encoder=encoder, width=width, image_size=image_size
        )

    sources = [data] if data is None or isinstance(data, str) else list(data)
    folder = Path()
    if loading.is_embeddings(subject):
        if data or labels or image_size or encoder or quick or checkpoint != "last":
            raise ConfigError("embeddings accept only --test, --full, --protocol and --out")
        result = judging.evaluate_vectors(subject, test, full=full, name=protocol)
    else:
        opened = opened_anew()
        folder = opened.run.path if opened.run else folder
        if test:
            raise ConfigError("--test goes with embeddings (.npz); name images with --data")
        found = {
            name or "its own data": judging.evaluate_subject(
                opened if len(sources) == 1 else opened_anew(),
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
        result = next(iter(found.values()))
        if len(found) > 1:
            result = {
                "protocol": protocol,
                "transfer": found,
                "verdict": verdicts.transfer(found),
            }
    write_json(Path(out) if out else folder / "eval.json", result)
    print_table(result, console)
    return result


def detect(
    subject: str | Path,
    *,
    data: str = "scenes:fashion-mnist",
    preset: str = "scenes",
    checkpoint: str = "last",
    encoder: str | None = None,
    width: int = 16,
    supervised: bool = True,
    out: str | Path | None = None,
    console: Console | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Train a detector on the encoder, on random weights and on the supervised encoder, and score them alike.

    Args:
        subject, checkpoint, encoder, width: as `evaluate`, but for vectors. data: as `data.boxes.open_boxes`.
        preset: of `evaluation.detection.PRESETS`; options: single settings by the names of `DetectConfig`.
        supervised: also the same network trained with the labels of the run's own source.
        out: the file; by default detection.json in the run, else in this folder.
    """
    if preset not in detector.PRESETS:
        raise unknown("preset", preset, detector.PRESETS)
    console = console or Console()
    opened = loading.open_subject(subject, checkpoint=checkpoint, encoder=encoder, width=width)
    config = dataclasses.replace(detector.PRESETS[preset](), **options)
    result = compare_detectors.compare_as_backbones(
        opened, open_boxes(data), config, supervised=supervised, console=console
    )
    write_json(
        Path(out) if out else (opened.run.path if opened.run else Path()) / "detection.json", result
    )
    compare_detectors.print_detection(result, console)
    return result


def compare(runs: Sequence[str | Path], *, console: Console | None = None) -> list[dict[str, Any]]:
    """Runs side by side: method, epochs, minutes, images/s, peak memory, loss / chance, kNN and linear with intervals.

    Returns:
        A row for each run, as `comparison.side_by_side`; scores are there once `evaluate` has judged the run.
    """
    if not runs:
        raise ConfigError("name the runs to compare: tellapart compare RUN RUN ...")
    rows = comparison.side_by_side([Run.open(run) for run in runs])
    comparison.print_comparison(rows, console or Console())
    return rows


def embed(
    subject: str | Path,
    *,
    out: str | Path,
    data: str | None = None,
    output: incremental.Wanted = "features",
    checkpoint: str = "last",
    encoder: str | None = None,
    width: int = 16,
    image_size: int | None = None,
    console: Console | None = None,
) -> Embeddings:
    """Embed a source with any encoder and save the vectors; a second call embeds only files whose contents are new.

    Args:
        subject, checkpoint, encoder, width, image_size: as `evaluate`, but for vectors.
        out: an .npz file, or a folder whose vectors can be memory-mapped. data: by default the run's own.
        output: "features", of a run also "embedding", of images also "patches": each place of the last map.
    """
    console = console or Console()
    opened = loading.open_subject(
        subject, checkpoint=checkpoint, encoder=encoder, width=width, image_size=image_size
    )
    found, kept = incremental.embed_subject(opened, data, output, Path(out), image_size, console)
    found.save(out)
    again = f", {kept:,} items were there already" if kept else ""
    console.say(f"{len(found):,} vectors of {found.vectors.shape[1]} in {out}{again}")
    return found


def search(
    run: str | Path,
    queries: Sequence[str | Path],
    *,
    k: int = 10,
    threshold: float = -1.0,
    index: Kind = "exact",
    sheet_path: str | Path | None = None,
    console: Console | None = None,
) -> list[list[dict[str, Any]]]:
    """The items of a run's source that look most like each query.

    Args:
        queries: files of the kind that the run learned from, or ids of items of the source (then without the item).
        k: look-alikes per query. threshold: the least cosine similarity of a look-alike.
        index: "exact", or of the extra `index` "flat", "hnsw" or "ivf-pq", built once and kept in the run.
        sheet_path: a picture of queries and look-alikes to write.
    Returns:
        For each query its look-alikes, best first: {"id", "similarity", "label"}.
    """
    if not queries:
        raise ConfigError("name what to look for: tellapart search RUN QUERY [QUERY ...]")
    console = console or Console()
    loaded = load(run)
    source = prepared(loaded.encoder, loaded.source(console=console))
    places = {name: i for i, name in enumerate(source.ids)}
    if sheet_path:
        loading.images_of(source, "--sheet")
    batches = [searching.query(q, places, source, loaded.encoder) for q in queries]
    items = searching.index_of(loaded, source, index, console)
    own = [places.get(str(q)) if not is_file(q) else None for q in queries]
    vectors = np.stack([searching.features(loaded, source, batch) for batch in batches])
    found = searching.neighbours(items, vectors, own, min(k, len(source)), threshold)
    if sheet_path and isinstance(source, ImageSource):
        pictures = [searching.picture(source, batch) for batch in batches]
        rows = [
            (image, [source.image(r) for r, _ in near])
            for image, near in zip(pictures, found, strict=True)
        ]
        contact_sheet.save(
            contact_sheet.draw(rows, captions=[[f"{s:.2f}" for _, s in near] for near in found]),
            sheet_path,
        )
        console.say(f"picture: {sheet_path}")
    return [
        [searching.described(source, row, similarity) for row, similarity in near] for near in found
    ]


def report(
    run: str | Path, *, out: str | Path = "report.html", console: Console | None = None
) -> dict[str, Any]:
    """Write a run as one self-contained HTML file: verdict, scores, curves, look-alikes, confusions, provenance.

    Args: out: the file. Scores are in it once `evaluate` has judged the run.
    Returns:
        {"out", "verdict", "sections", "bytes"}.
    """
    return run_report.write(load(run), Path(out), console or Console())


def explore(
    run: str | Path,
    *,
    data: str | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
    browser: bool = False,
    console: Console | None = None,
) -> None:
    """Show a run on a local page until Ctrl-C, with the arguments of `explorer.server.serve`."""
    server.serve(run, host=host, port=port, data=data, open_browser=browser, console=console)


def load(run: str | Path, *, checkpoint: str = "last") -> loading.Loaded:
    """Open a run for use: `load("runs/x").encoder.features(images)`.

    Args: checkpoint: "last", "best-unlabelled", or a file of weights of the same network.
    """
    opened = Run.open(run)
    return loading.Loaded(loading.load_encoder(opened, checkpoint), opened)
