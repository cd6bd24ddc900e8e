"""What `export` does: a folder that anyone can load without us, checked before it appears.

model.safetensors    the network without its head, under the plain names of its library
model.py             what builds it, loads it and prepares an image: torch and the network's library alone
example.py           ten lines that use it
config.json  preprocessor.json  README.md    what it is, what it wants, and the model card
model.onnx           with `onnx`
"""

from __future__ import annotations

import copy
import inspect
import json
import runpy
import shutil
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save as save_safetensors
from torch import Tensor, nn

from . import cards, curation, nearest
from .console import Console
from .data import Source
from .embeddings import Embeddings, embed
from .encoders import AnyEncoder, Encoder, vision
from .encoders.inference import folded
from .errors import ConfigError, MissingExtraError, RunError, TellapartError
from .evaluation import knn
from .run import require_new
from .subjects import Loaded, parts_of

KS = (20, 200)
TRAIN, TEST = 20_000, 5_000  # items that the loss of kNN is measured with, at most
TOLERANCE = {"torch": 1e-5, "onnxruntime": 1e-4}
BATCHES = (1, 3, 8)
NEAREST = 10  # neighbours of an item without a label, whose share that stays is measured


def write(
    loaded: Loaded, out: Path, *, onnx: bool, fold_batchnorm: bool, bf16: bool, console: Console
) -> dict[str, Any]:
    """Write the folder of an encoder, whole or not at all.

    Args:
        onnx: also model.onnx, any batch size. fold_batchnorm: each BatchNorm inside the convolution before it.
        bf16: weights rounded to bfloat16, half the bytes; they are loaded as float32.
    Returns:
        {"out", "files", "features", "checked": largest difference by runtime, "lost": what kNN loses}.
    Raises:
        ConfigError: an encoder of sounds, series or sentences. RunError: `out` is in use or cannot be written.
        MissingExtraError: what ONNX needs is not installed. TellapartError: the exported network computes otherwise.
    """
    encoder = loaded.encoder
    if not isinstance(encoder, Encoder) or loaded.run.encoder_files()[0]["encoder"] == "patches":
        raise ConfigError(
            f"export writes encoders of images; that of {loaded.run.path} reads {loaded.run.manifest['data']['kind']}: "
            f"ta.load({str(loaded.run.path)!r}).encoder is it, and {loaded.run.path}/encoder its weights"
        )
    require_new(out)
    if onnx:
        require_onnx()
    description, _ = loaded.run.encoder_files()
    network = _changed(encoder, fold_batchnorm, bf16)
    weights = {k: v.detach().contiguous() for k, v in _plain(network.backbone).state_dict().items()}
    if bf16:
        weights = {k: v.bfloat16() if v.is_floating_point() else v for k, v in weights.items()}
    costs = lost(loaded, network, console) if fold_batchnorm or bf16 else {}
    texts = {
        "model.py": _model_py(encoder, description, fold_batchnorm),
        "example.py": EXAMPLE,
        "config.json": json.dumps(description | {"folded": fold_batchnorm, "bf16": bf16}, indent=1),
        "preprocessor.json": json.dumps(cards.preprocessor(loaded.run.manifest, description), indent=1),
        "README.md": cards.export_card(loaded.run.manifest, description, loaded.run.read_json("eval.json"), costs),
    }
    checked: dict[str, float] = {}

    def fill(folder: Path) -> None:
        (folder / "model.safetensors").write_bytes(save_safetensors(weights))
        for name, words in texts.items():
            (folder / name).write_text(words, encoding="utf-8")
        checked["torch"] = _largest(network, _loaded(folder), description, "torch", BATCHES)
        if onnx:
            checked["onnxruntime"] = _write_onnx(network, folder / "model.onnx", description)

    appearing(out, fill)
    files = sorted(p.name for p in out.iterdir())
    for runtime, difference in checked.items():
        console.say(f"{runtime}: features within {difference:.1e} of the encoder here")
    for name, value in costs.items():
        console.say(f"{name}: {value}")
    console.say(f"{out}: {', '.join(files)}; python {out}/example.py IMAGE uses it")
    return {"out": str(out), "files": files, "features": network.backbone.width, "checked": checked, "lost": costs}


def _changed(encoder: Encoder, fold: bool, bf16: bool) -> Encoder:
    """A copy as it will be after loading."""
    made = copy.deepcopy(encoder).eval()
    if fold:
        width = made.backbone.width
        made.backbone = folded(made.backbone)  # type: ignore[assignment]
        made.backbone.width = width
    if bf16:
        with torch.no_grad():
            for tensor in [*made.backbone.parameters(), *made.backbone.buffers()]:
                if tensor.is_floating_point():
                    tensor.copy_(tensor.bfloat16().float())
    return made


def _plain(backbone: nn.Module) -> nn.Module:
    """The network of the library, whose names are plain; small-resnet is its own."""
    return getattr(backbone, "model", backbone)


def lost(loaded: Loaded, changed: AnyEncoder, console: Console) -> dict[str, float]:
    """What the changes cost on the run's own source: points of kNN; without labels the neighbours that stay."""
    source = loaded.source(console=console)
    train, test = parts_of(source)
    if source.labels is None or test is None:
        part = train.subset(np.sort(np.random.default_rng(0).permutation(len(train))[:TEST]))
        return _moved(embed(loaded.encoder, part), embed(changed, part))
    before, after = (_scores(network, train, test) for network in (loaded.encoder, changed))
    return {f"{name}, points lost": round(100 * (before[name] - after[name]), 2) for name in before}


def _scores(encoder: AnyEncoder, train: Source, test: Source) -> dict[str, float]:
    fitted = embed(encoder, train).labelled().at_most(TRAIN)
    return knn(fitted, embed(encoder, test).labelled().at_most(TEST), k=KS)


def _moved(before: Embeddings, after: Embeddings) -> dict[str, float]:
    """The share of each item's nearest neighbours that it keeps, and the mean cosine of its vectors."""
    units = [curation.unit_rows(e) for e in (before, after)]
    k = min(NEAREST, len(before) - 1)
    near = [nearest.top_k_of_others(rows, k)[1].tolist() for rows in units]
    kept = np.mean([len(set(a) & set(b)) / k for a, b in zip(*near, strict=True)])
    cosine = (units[0] * units[1]).sum(1).mean()
    return {f"share of the {k} nearest kept": round(float(kept), 4), "mean cosine": round(float(cosine), 6)}


def appearing(out: Path, fill: Callable[[Path], None]) -> None:
    """Write into a scratch folder beside `out`, which takes its name once everything in it was checked."""
    work = None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=".export-", dir=out.parent))
        work.chmod(0o755)
        fill(work)
        if out.exists():
            out.rmdir()  # empty: require_new has looked
        work.rename(out)
    except OSError as error:
        raise RunError(f"cannot write {out}: {error.strerror}; give another --out") from error
    finally:
        if work:
            shutil.rmtree(work, ignore_errors=True)


# what is written ---------------------------------------------------------------------------------------------


def _model_py(encoder: Encoder, description: dict[str, Any], fold: bool) -> str:
    """The program beside the weights: builds the network as its library does, loads it, prepares an image."""
    name, channels = description["encoder"], description["channels"]
    library, _, inner = name.partition("/")
    lines: list[str]
    imports = []
    if library == "timm":
        imports = ["import timm"]
        size = f", img_size={description['size']}" if "vit" in inner or "swin" in inner else ""
        lines = [f"network = timm.create_model({inner!r}, num_classes=0, in_chans={channels}{size})"]
    elif library == "torchvision":
        imports = ["import torchvision"]
        lines = [f"network = torchvision.models.get_model({inner!r}, weights=None)", *_without_classifier(encoder)]
    else:
        lines = [f"network = SmallResNet({channels}, {description['width']})"]
    if encoder.backbone.small_stem:
        conv = _plain(encoder.backbone).get_submodule("conv1")
        lines += [
            f"network.conv1 = nn.Conv2d({channels}, {conv.out_channels}, 3, 1, 1, bias=False)  # for small images",
            "network.maxpool = nn.Identity()",
        ]
    elif library == "torchvision" and channels != 3:
        copied = f"nn.Parameter(first.weight[:, :1].repeat(1, {channels}, 1, 1))"
        lines += [
            f"first = network.get_submodule({_first_convolution(encoder)!r})  # of {channels} channel(s)",
            f"first.in_channels, first.weight = {channels}, {copied}",
        ]
    lines += ["network.eval()"]
    if fold:
        imports += ["from torch.fx.experimental.optimization import fuse"]
        lines += ["network = fuse(network)  # BatchNorm lies in the convolutions"]
    own = "" if library in ("timm", "torchvision") else "\n\n" + _source_of_small_resnet().rstrip()
    values = {
        "imports": "\n".join(sorted([*imports, "import torch"])), "network": own, "build": "\n    ".join(lines),
        "size": str(description["size"]), "mean": repr(encoder.mean.flatten().tolist()),
        "std": repr(encoder.std.flatten().tolist()), "mode": repr("L" if channels == 1 else "RGB"),
    }  # fmt: skip
    made = MODEL
    for name, value in values.items():
        made = made.replace(f"@{name}@", value)
    return made


def _without_classifier(encoder: Encoder) -> list[str]:
    """The lines that drop what follows the features."""
    names = [n for n, m in _plain(encoder.backbone).named_modules() if isinstance(m, nn.Identity)]
    last = names[-1]
    parent, _, child = last.rpartition(".")
    place = f"network.get_submodule({parent!r})" if parent else "network"
    return [f"setattr({place}, {child!r}, nn.Identity())"]


def _first_convolution(encoder: Encoder) -> str:
    names: list[str] = [
        name for name, module in _plain(encoder.backbone).named_modules() if isinstance(module, nn.Conv2d)
    ]
    return names[0]


def _source_of_small_resnet() -> str:
    """Our own network as a program, word for word."""
    block, body = (inspect.getsource(c) for c in (vision.BasicBlock, vision.SmallResNet))
    return f"{block}\n\n{body.replace('(Backbone)', '(nn.Module)')}"


def _loaded(folder: Path) -> Callable[[Tensor], Tensor]:
    """The encoder as model.py of a folder builds it."""
    made: Callable[[Tensor], Tensor] = runpy.run_path(str(folder / "model.py"))["load"]()
    return made


def _largest(
    network: Encoder, other: Callable[[Tensor], Any], description: dict[str, Any], runtime: str, sizes: tuple[int, ...]
) -> float:
    """The largest difference of features, relative to their largest value where that is above 1."""
    draw = torch.Generator().manual_seed(0)
    worst = 0.0
    with torch.inference_mode():
        for n in sizes:
            x = torch.rand(n, description["channels"], description["size"], description["size"], generator=draw)
            wanted, found = network.features(x), torch.as_tensor(np.asarray(other(x)))
            worst = max(worst, float((wanted - found).abs().max() / wanted.abs().max().clamp_min(1)))
    if not worst <= TOLERANCE[runtime]:
        raise TellapartError(
            f"the exported network differs by {worst:.1e} in {runtime} (at most {TOLERANCE[runtime]:.0e} is allowed); "
            "nothing was written"
        )
    return worst


def require_onnx() -> None:
    """Raise MissingExtraError unless what ONNX needs is installed."""
    for package in ("onnx", "onnxscript", "onnxruntime"):
        try:
            __import__(package)
        except ImportError as error:
            raise MissingExtraError(package, "export") from error


class _Whole(nn.Module):
    """Images in 0..1 to features, normalisation inside."""

    def __init__(self, network: Encoder) -> None:
        super().__init__()
        self.network, self.mean, self.std = network.backbone, network.mean, network.std

    def forward(self, images: Tensor) -> Tensor:
        made: Tensor = self.network((images - self.mean) / self.std)
        return made.flatten(1)


def _write_onnx(network: Encoder, path: Path, description: dict[str, Any]) -> float:
    """Write model.onnx and compare it with torch at several batch sizes."""
    import onnxruntime

    whole = _Whole(copy.deepcopy(network)).eval().to(memory_format=torch.contiguous_format)
    x = torch.rand(2, description["channels"], description["size"], description["size"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # notices of the exporter about its own parts
        program = torch.onnx.export(
            whole, (x,), dynamo=True, verbose=False, input_names=["images"], output_names=["features"],
            dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
        )  # fmt: skip
    if program is None:
        raise TellapartError("torch.onnx made no program of this network; nothing was written")
    program.save(str(path))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return _largest(network, lambda x: session.run(None, {"images": x.numpy()})[0], description, "onnxruntime", BATCHES)


EXAMPLE = '''"""python example.py IMAGE [IMAGE ...] prints how alike the images are to the first."""
import sys

import torch
from model import load, view

with torch.inference_mode():
    features = load()(torch.cat([view(name) for name in sys.argv[1:]]))
print(features.shape, torch.cosine_similarity(features[:1], features).tolist())
'''

MODEL = '''"""An encoder of images: load() gives it, view(FILE) prepares an image for it."""
from pathlib import Path

@imports@
from PIL import Image, ImageOps
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

SIZE = @size@  # side of what it sees, pixels@network@


class Encoder(nn.Module):
    """Images (N, C, P, P) with values in 0..1 to features (N, F)."""

    def __init__(self, network):
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(@mean@).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(@std@).view(1, -1, 1, 1))

    def forward(self, images):
        images = ((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        return self.network(images).flatten(1)


def load(file=Path(__file__).parent / "model.safetensors"):
    """The encoder with its weights, in eval mode."""
    @build@
    network.load_state_dict({name: w.float() if w.is_floating_point() else w for name, w in load_file(file).items()})
    return Encoder(network).eval().to(memory_format=torch.channels_last)


def view(file):
    """An image file as (1, C, P, P) in 0..1: short side to 1.15 P unless it is P already, then the middle."""
    picture = ImageOps.exif_transpose(Image.open(file))
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture.convert("RGBA"))
    picture = picture.convert(@mode@)
    if min(picture.size) != SIZE:
        scale = round(SIZE * 1.15) / min(picture.size)
        size = [max(SIZE, round(side * scale)) for side in picture.size]
        picture = picture.resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)
    left, top = ((side - SIZE) // 2 for side in picture.size)
    picture = picture.crop((left, top, left + SIZE, top + SIZE))
    pixels = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8)
    return pixels.view(SIZE, SIZE, -1).permute(2, 0, 1)[None] / 255
'''
