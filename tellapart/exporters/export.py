"""Export an encoder as a folder that loads without tellapart, checked before it appears.

model.safetensors    weights without the projection head; for images with the names of the library
model.py             the network and its preprocessing as a program of torch (and its library)
example.py           an example of ten lines
config.json          architecture
preprocessor.json    preprocessing settings
README.md            model card
tokenizer.json       for sentences
modules.json ...     of a transformers network: what SentenceTransformer(folder) reads
model.onnx           with `onnx`
"""

from __future__ import annotations

import copy
import json
import runpy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn

from ..curation import outliers
from ..data import Source, modality_of
from ..embeddings.embeddings import Embeddings, embed
from ..encoders import AnyEncoder
from ..errors import MissingExtraError, TellapartError, require
from ..evaluation import knn
from ..functional.geometry import unit_rows
from ..runtime import files
from ..runtime.console import Console
from ..training import model_card
from ..training.loading import Loaded, load_encoder, parts_of
from ..training.run import Run, require_new
from . import layouts
from . import program as programs
from .card import export_card
from .program import Standalone

KS = (20, 200)
TRAIN, TEST = 20_000, 5_000  # maximum items for measuring the lost k-NN accuracy
NEAREST = 10  # neighbours compared before and after, for data without labels
ALLOWED = {"torch": 1e-5, "onnxruntime": 1e-4}  # largest allowed relative difference of features
BATCHES = (1, 3, 8)
LENGTHS = (0, 3)  # added to the length of the shortest compared input


def export(
    run: str | Path,
    *,
    out: str | Path,
    checkpoint: str = "last",
    onnx: bool = False,
    fold_batchnorm: bool = False,
    bf16: bool = False,
    console: Console | None = None,
) -> dict[str, Any]:
    """Write the encoder of a run as a folder that loads without tellapart, whole or not at all.

    Args:
        run: folder of the run.
        out: a new or empty folder.
        checkpoint: "last", "best-unlabelled", or a file of weights of the same network.
        onnx: also write model.onnx, for any batch size and any length of signals and sentences.
        fold_batchnorm: fold each BatchNorm into the convolution before it.
        bf16: store the weights in bfloat16, half the bytes; they are loaded as float32.
        console: where progress is printed; None: standard error.

    Returns:
        {"out", "files", "features": F, "checked": largest difference by runtime, "lost": accuracy
        lost by folding and rounding, measured on the data of the run}.

    Raises:
        RunError: not a run, no encoder in it, or `out` is in use or cannot be written.
        ConfigError: no BatchNorm to fold.
        MissingExtraError: a package for ONNX is not installed.
        TellapartError: the exported network gives different features.
    """
    opened, console, out = Run.open(run), console or Console(), Path(out)
    loaded = Loaded(load_encoder(opened, checkpoint), opened)
    require_new(out)
    if onnx:
        require_onnx()
    manifest, (description, _) = opened.manifest, opened.encoder_files()
    reading = {
        "fit": manifest["config"].get("fit", "pad"), "ranges": manifest["data"].get("ranges"),
    }  # fmt: skip
    encoder = _changed(loaded.encoder, fold_batchnorm, bf16)
    made = modality_of(manifest["data"].get("kind", "images")).program(
        loaded.encoder,
        encoder,
        description | {"reading": reading},
        rate=manifest["data"].get("rate"),
        fold=fold_batchnorm,
    )
    costs = lost(loaded, encoder, console) if fold_batchnorm or bf16 else {}
    texts = _texts(
        opened, encoder, made, description | {"folded": fold_batchnorm, "bf16": bf16}, costs
    )
    checked: dict[str, float] = {}

    with files.appearing_folder(out, prefix=".export-") as folder:
        kind = torch.bfloat16 if bf16 else torch.float32
        weights = {k: v.to(kind) if v.is_floating_point() else v for k, v in made.weights.items()}
        (folder / "model.safetensors").write_bytes(save(weights, metadata={"format": "pt"}))
        for name, words in texts.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(words, encoding="utf-8")
        other = runpy.run_path(str(folder / "model.py"))["load"]()
        checked["torch"] = _largest(encoder, other, made, description, "torch")
        if onnx:
            checked["onnxruntime"] = _write_onnx(
                encoder, other, folder / "model.onnx", made, description
            )

    for runtime, difference in checked.items():
        console.say(f"{runtime}: features within {difference:.1e} of the encoder here")
    for name, value in costs.items():
        console.say(f"{name}: {value}")
    names = sorted(p.name for p in out.iterdir())
    console.say(f"{out}: {', '.join(names)}")
    console.say(f"next: python {out}/example.py {made.item}")
    width = len(_features(encoder, programs.example_inputs(made, description, 1), made)[0])
    return {"out": str(out), "files": names, "features": width, "checked": checked, "lost": costs}


def _texts(
    run: Run,
    encoder: AnyEncoder,
    made: Standalone,
    description: dict[str, Any],
    costs: dict[str, float],
) -> dict[str, str]:
    """Return the text files of the folder by name."""
    theirs = programs.transformers_config(made)
    about = {name: value for name, value in description.items() if name != "tokenizer"}
    about |= layouts.timm_config(encoder, made.network, description)
    card = export_card(run.manifest, description, run.evaluation(), costs)
    return {
        "model.py": made.program,
        "example.py": EXAMPLE.format(item=made.item, star="*" if len(made.inputs) > 1 else ""),
        "config.json": theirs.to_json_string() if theirs else json.dumps(about, indent=1),
        "preprocessor.json": json.dumps(
            _preprocessor(run.manifest, description, encoder), indent=1
        ),
        "README.md": card.replace("example.py IMAGE", f"example.py {made.item}"),
        **made.files,
        **(layouts.sentence_transformers_files(encoder, theirs.to_dict()) if theirs else {}),
    }


def _changed(encoder: AnyEncoder, fold: bool, bf16: bool) -> AnyEncoder:
    """Return a copy with folded or rounded weights, as the exported one will be loaded."""
    made = copy.deepcopy(encoder).eval()
    if fold:
        made.fold_batchnorm()
    if bf16:
        with torch.no_grad():
            for name, tensor in made.exported().state_dict().items():
                if tensor.is_floating_point() and not name.startswith("head."):
                    tensor.copy_(tensor.bfloat16().float())
    return made


def lost(loaded: Loaded, changed: AnyEncoder, console: Console) -> dict[str, float]:
    """Return the accuracy lost by the changes, measured on the source of the run.

    Args:
        loaded: the run with its encoder.
        changed: the encoder after folding or rounding.
        console: where progress is printed.

    Returns:
        The loss of k-NN accuracy in percentage points; without labels, the share of nearest
        neighbours that are kept and the mean cosine similarity of the features.
    """
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
    """Return the share of nearest neighbours that are kept, and the mean cosine similarity."""
    near = [outliers.neighbours(e, k=NEAREST)[1].tolist() for e in (before, after)]
    k = len(near[0][0])
    kept = np.mean([len(set(a) & set(b)) / k for a, b in zip(*near, strict=True)])
    cosine = (unit_rows(before.vectors) * unit_rows(after.vectors)).sum(1).mean()
    return {
        f"share of the {k} nearest kept": round(float(kept), 4),
        "mean cosine": round(float(cosine), 6),
    }


def _preprocessor(
    manifest: dict[str, Any], description: dict[str, Any], encoder: AnyEncoder
) -> dict[str, Any]:
    """Return the preprocessing settings of the run, with the constants of the network added."""
    found = model_card.preprocessor(manifest, description)
    if "tokenizer" in found:
        return found | {
            "tokenizer": "tokenizer.json", "max_length": description["max_length"],
            "pooler": description["pooler"],
        }  # fmt: skip
    for name in ("mean", "std"):
        found[name] = encoder.get_buffer(name).flatten().tolist()
    return found | {"normalisation": "inside the network, by mean and std"}


def _features(encoder: AnyEncoder, inputs: tuple[Tensor, ...], made: Standalone) -> Tensor:
    """Return the features (N, F) that the encoder of the run gives for inputs of the program."""
    view: Any = dict(zip(made.inputs, inputs, strict=True)) if len(inputs) > 1 else inputs[0]
    with torch.inference_mode():
        return encoder.features(view)


def _largest(
    encoder: AnyEncoder,
    other: Callable[..., Any],
    made: Standalone,
    description: dict[str, Any],
    runtime: str,
) -> float:
    """Return the largest difference of features over several batch sizes and lengths.

    The difference is relative to the largest feature where that is above 1.
    """
    worst = 0.0
    lengths = LENGTHS if any(len(sizes) > 1 for sizes in made.inputs.values()) else LENGTHS[:1]
    for n in BATCHES:
        for longer in lengths:
            inputs = programs.example_inputs(made, description, n, longer)
            wanted = _features(encoder, inputs, made)
            with torch.inference_mode():
                found = torch.as_tensor(np.asarray(other(*inputs)))
            worst = max(
                worst, float((wanted - found).abs().max() / wanted.abs().max().clamp_min(1))
            )
    if not worst <= ALLOWED[runtime]:
        raise TellapartError(
            f"the exported network differs by {worst:.1e} in {runtime} "
            f"(at most {ALLOWED[runtime]:.0e} is allowed); nothing was written"
        )
    return worst


def require_onnx() -> None:
    """Raise MissingExtraError unless the packages for ONNX export are installed."""
    for package in ("onnx", "onnxscript", "onnxruntime"):
        try:
            __import__(package)
        except ImportError as error:
            raise MissingExtraError(package, "export") from error


def _write_onnx(
    encoder: AnyEncoder,
    network: nn.Module,
    path: Path,
    made: Standalone,
    description: dict[str, Any],
) -> float:
    """Write model.onnx and compare it with torch at several sizes."""
    import onnxruntime

    network = copy.deepcopy(network)
    if "signal" in made.inputs:
        context: Any = network.get_submodule("context")
        network.context = Recurrent(context)
    shapes = {
        name: {i: torch.export.Dim.DYNAMIC for i in dims} for name, dims in made.inputs.items()
    }
    fast: Any = torch.backends.mha
    before = fast.get_fastpath_enabled()
    fast.set_fastpath_enabled(False)  # a fused operator that ONNX lacks
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter warns about its own internals
            program = torch.onnx.export(
                network.to(memory_format=torch.contiguous_format),
                programs.example_inputs(made, description, 2, 2), dynamo=True, verbose=False,
                input_names=list(made.inputs), output_names=["features"], dynamic_shapes=shapes,
            )  # fmt: skip
    except torch.onnx.OnnxExporterError as error:
        reason = str(error).strip().splitlines()[0]
        raise TellapartError(
            f"torch.onnx cannot write this network ({reason}); leave out --onnx"
        ) from error
    finally:
        fast.set_fastpath_enabled(before)
    if program is None:
        raise TellapartError("torch.onnx made no program of this network; leave out --onnx")
    program.save(str(path))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def other(*inputs: Tensor) -> Any:
        given = {name: tensor.numpy() for name, tensor in zip(made.inputs, inputs, strict=True)}
        return session.run(None, given)[0]

    return _largest(encoder, other, made, description, "onnxruntime")


class Recurrent(nn.Module):
    """The recurrent context network as an ONNX operator, for any number of frames.

    The torch module would be unrolled to a fixed number of frames. ONNX orders the gates of a GRU
    z, r, h (torch: r, z, n) and those of an LSTM i, o, f, c (torch: i, f, g, o).
    """

    inner: Tensor
    recurrent: Tensor
    bias: Tensor

    def __init__(self, context: nn.RNNBase) -> None:
        super().__init__()
        require(
            hasattr(torch.onnx, "ops"),
            "--onnx of sounds and series needs torch 2.8 or later; leave it out",
        )
        self.kind, self.width = context.mode, context.hidden_size
        order = (1, 0, 2) if self.kind == "GRU" else (0, 3, 1, 2)

        def ordered(name: str) -> Tensor:
            parts = context.get_parameter(f"{name}_l0").detach().chunk(len(order))
            return torch.cat([parts[i] for i in order])[None]

        self.register_buffer("inner", ordered("weight_ih"))
        self.register_buffer("recurrent", ordered("weight_hh"))
        self.register_buffer("bias", torch.cat([ordered("bias_ih"), ordered("bias_hh")], 1))

    def forward(self, x: Tensor) -> tuple[Tensor]:
        """Return the context (N, T, H) of frames (N, T, F)."""
        n, frames, _ = x.shape
        settings: dict[str, Any] = {"hidden_size": self.width}
        if self.kind == "GRU":
            settings["linear_before_reset"] = 1
        out = torch.onnx.ops.symbolic_multi_out(
            self.kind, (x.transpose(0, 1), self.inner, self.recurrent, self.bias), settings,
            dtypes=(x.dtype, x.dtype), shapes=((frames, 1, n, self.width), (1, n, self.width)),
            version=18,
        )  # fmt: skip
        return (out[0][:, 0].transpose(0, 1),)


EXAMPLE = '''"""python example.py {item} prints its features."""
import sys

import torch
from model import load, view

sys.argv[1:] or sys.exit(__doc__)
with torch.inference_mode():
    features = load()({star}view(sys.argv[1]))
print(features.shape, features[0].tolist())
'''
