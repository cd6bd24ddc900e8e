"""What each verb takes on the command line: names, defaults, and a line of help each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro


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
    """seed of the pictures and of the training."""
    full: bool = False
    """also print the complete tables of eval."""


@dataclass(frozen=True)
class Eval(Output):
    """Judge an encoder beside its baselines. Example: tellapart eval runs/photos --labels few.csv"""

    subject: tyro.conf.Positional[str] = tyro.MISSING
    """a run folder, timm/NAME, torchvision/NAME, a file of weights, or embeddings (.npz)."""
    data: tuple[str, ...] = ()
    """source to judge it on, by default the run's own; several make a table of transfer. Of sentences also sts:FILE."""
    protocol: str = "eval-v2"
    """the frozen protocol: eval-v2, or eval-v1 for scores that compare with older ones."""
    full: bool = False
    """also every stage, more labels, fine-tuning and distillation, and what the head discards; many minutes."""
    quick: bool = False
    """score a sample of up to 1,000 items of each part, which the verdict states."""
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
class Inspect(Output):
    """What is in a source before training on it. Example: tellapart inspect photos/ --html inspect.html"""

    data: tyro.conf.Positional[str] = tyro.MISSING
    """a folder, a list of paths, a built-in: whatever train takes as --data."""
    method: str | None = None
    """whose defaults are shown; by default the usual one for this kind of data."""
    encoder: str | None = None
    """a run or timm/NAME whose features find outliers and odd labels; by default pixels do."""
    html: Path | None = None
    """a page with thumbnails to write."""
    apply: Path | None = None
    """a list of the items without their copies to write, for --data; nothing is deleted."""


@dataclass(frozen=True)
class Explore(Output):
    """A local page of a run: map, neighbours, search by dropping. Example: tellapart explore runs/photos"""

    run: tyro.conf.Positional[Path] = tyro.MISSING
    """folder of the run."""
    data: str | None = None
    """source to show; by default the one the run was trained on."""
    host: str = "127.0.0.1"
    """address to listen on; any other than this one lets other machines in, and says so."""
    port: int = 0
    """port to listen on; 0: a free one."""
    browser: bool = False
    """open the page in a browser."""


@dataclass(frozen=True)
class Export(Output):
    """An encoder that anyone can load without tellapart. Example: tellapart export runs/photos --out encoder/ --onnx"""

    run: tyro.conf.Positional[Path] = tyro.MISSING
    """folder of the run."""
    out: Path = tyro.MISSING
    """new folder of the encoder."""
    checkpoint: str = "last"
    """last, best-unlabelled, or a file of weights."""
    onnx: bool = False
    """also model.onnx with any batch size, checked against torch."""
    fold_batchnorm: bool = False
    """BatchNorm inside the convolutions; what kNN loses is printed."""
    bf16: bool = False
    """weights in half the bytes; what kNN loses is printed."""


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
