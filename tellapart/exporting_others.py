"""What `export` does with every kind of encoder: images go to `exporting`, the others are written here.

model.safetensors    the network without its head; of a transformers model under the names of its library
model.py             the network as a program of plain torch, and what prepares its input
example.py           what uses it
config.json  preprocessor.json  README.md    what it is, what it wants, and the model card
tokenizer.json       of sentences
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
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from . import cards, exporting, standalone
from .console import Console
from .encoders import AnyEncoder, Encoder, SequenceEncoder
from .encoders.norms import batchnorms
from .encoders.patches import PatchEncoder
from .errors import ConfigError, TellapartError, require
from .run import Run, require_new
from .standalone import Standalone
from .subjects import Loaded, load_encoder

ALLOWED = {"torch": 1e-5, "onnxruntime": 1e-4}  # the largest difference that is allowed
LENGTHS = (0, 3)  # added to the shortest signal and sentence that are compared


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
        out: a new or empty folder. checkpoint: "last", "best-unlabelled", or a file of weights of the same network.
        onnx: also model.onnx, for batches of any size and signals and sentences of any length.
        fold_batchnorm: each BatchNorm inside the convolution before it. bf16: weights rounded to bfloat16, half
            the bytes; they are loaded as float32. What either costs is measured on the run's own source.
    Returns:
        {"out", "files", "features": F, "checked": largest difference by runtime, "lost": what the changes cost}.
    Raises:
        RunError: not a run, no encoder in it, or `out` is in use or cannot be written. ConfigError: no BatchNorm to
        fold. MissingExtraError: what ONNX needs is not installed. TellapartError: the result computes otherwise.
    """
    opened, console = Run.open(run), console or Console()
    loaded = Loaded(load_encoder(opened, checkpoint), opened)
    how = {"onnx": onnx, "fold_batchnorm": fold_batchnorm, "bf16": bf16}
    if isinstance(loaded.encoder, Encoder) and not isinstance(loaded.encoder, PatchEncoder):
        return exporting.write(loaded, Path(out), **how, console=console)
    return write(loaded, Path(out), **how, console=console)


def write(
    loaded: Loaded, out: Path, *, onnx: bool, fold_batchnorm: bool, bf16: bool, console: Console
) -> dict[str, Any]:
    """As `export`, of an encoder of sounds, series, sentences or patches."""
    require_new(out)
    if onnx:
        exporting.require_onnx()
    manifest, (description, _) = loaded.run.manifest, loaded.run.encoder_files()
    encoder = _changed(loaded.encoder, fold_batchnorm, bf16)
    made = standalone.of(encoder, description, rate=manifest["data"].get("rate"), fold=fold_batchnorm)
    lost = exporting.lost(loaded, encoder, console) if fold_batchnorm or bf16 else {}
    texts = {
        "model.py": made.program,
        "example.py": EXAMPLE.format(item=made.item, star="*" if len(made.inputs) > 1 else ""),
        "preprocessor.json": json.dumps(_preprocessor(manifest, description, encoder), indent=1),
        "README.md": cards.export_card(manifest, description, loaded.run.read_json("eval.json"), lost).replace(
            "example.py IMAGE", f"example.py {made.item}"
        ),
        **made.files,
    }
    theirs = standalone.transformers_config(made)
    about = description | {"folded": fold_batchnorm, "bf16": bf16}
    about.pop("tokenizer", None)
    texts["config.json"] = theirs.to_json_string() if theirs else json.dumps(about, indent=1)
    checked: dict[str, float] = {}

    def fill(folder: Path) -> None:
        kind = torch.bfloat16 if bf16 else torch.float32
        weights = {k: v.to(kind) if v.is_floating_point() else v for k, v in made.weights.items()}
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        for name, words in texts.items():
            (folder / name).write_text(words, encoding="utf-8")
        other = runpy.run_path(str(folder / "model.py"))["load"]()
        checked["torch"] = _largest(encoder, other, made, description, "torch")
        if onnx:
            checked["onnxruntime"] = _write_onnx(encoder, other, folder / "model.onnx", made, description)

    exporting.appearing(out, fill)
    for runtime, difference in checked.items():
        console.say(f"{runtime}: features within {difference:.1e} of the encoder here")
    for name, value in lost.items():
        console.say(f"{name}: {value}")
    files = sorted(p.name for p in out.iterdir())
    console.say(f"{out}: {', '.join(files)}; python {out}/example.py {made.item} uses it")
    width = len(_features(encoder, standalone.example_inputs(made, description, 1), made)[0])
    return {"out": str(out), "files": files, "features": width, "checked": checked, "lost": lost}


def _changed(encoder: AnyEncoder, fold: bool, bf16: bool) -> AnyEncoder:
    """A copy as it will be after loading."""
    made = copy.deepcopy(encoder).eval()
    if fold:
        layers = made.frames.layers if isinstance(made, SequenceEncoder) else nn.ModuleList()
        if not batchnorms(layers):
            raise ConfigError("--fold-batchnorm: this network has no BatchNorm; leave it out")
        for i in range(0, len(layers), 3):  # a convolution, its norm, ReLU
            convolution, norm = layers[i : i + 2]
            if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                layers[i], layers[i + 1] = fuse_conv_bn_eval(convolution, norm), nn.Identity()
    if bf16:
        with torch.no_grad():
            for name, tensor in made.state_dict().items():
                if tensor.is_floating_point() and not name.startswith("head."):
                    tensor.copy_(tensor.bfloat16().float())
    return made


def _preprocessor(manifest: dict[str, Any], description: dict[str, Any], encoder: AnyEncoder) -> dict[str, Any]:
    """As beside the run's encoder, with what only its program knew."""
    found = cards.preprocessor(manifest, description)
    if "tokenizer" in found:
        return found | {
            "tokenizer": "tokenizer.json", "max_length": description["max_length"], "pooler": description["pooler"],
        }  # fmt: skip
    for name in ("mean", "std"):
        found[name] = encoder.get_buffer(name).flatten().tolist()
    return found | {"normalisation": "inside the network, by mean and std"}


def _features(encoder: AnyEncoder, inputs: tuple[Tensor, ...], made: Standalone) -> Tensor:
    """What the encoder of the run makes of the inputs of its program."""
    view: Any = dict(zip(made.inputs, inputs, strict=True)) if len(inputs) > 1 else inputs[0]
    with torch.inference_mode():
        return encoder.features(view)


def _largest(
    encoder: AnyEncoder, other: Callable[..., Any], made: Standalone, description: dict[str, Any], runtime: str
) -> float:
    """The largest difference of features over several sizes, relative to their largest value where that is above 1."""
    worst = 0.0
    for n in exporting.BATCHES:
        for longer in LENGTHS:
            inputs = standalone.example_inputs(made, description, n, longer)
            wanted = _features(encoder, inputs, made)
            with torch.inference_mode():
                found = torch.as_tensor(np.asarray(other(*inputs)))
            worst = max(worst, float((wanted - found).abs().max() / wanted.abs().max().clamp_min(1)))
    if not worst <= ALLOWED[runtime]:
        raise TellapartError(
            f"the exported network differs by {worst:.1e} in {runtime} (at most {ALLOWED[runtime]:.0e} is allowed); "
            "nothing was written"
        )
    return worst


def _write_onnx(
    encoder: AnyEncoder, network: nn.Module, path: Path, made: Standalone, description: dict[str, Any]
) -> float:
    """Write model.onnx and compare it with torch at several sizes."""
    import onnxruntime

    network = copy.deepcopy(network)
    if "signal" in made.inputs:
        context: Any = network.get_submodule("context")
        network.context = Recurrent(context)
    shapes = {name: {i: torch.export.Dim.DYNAMIC for i in dims} for name, dims in made.inputs.items()}
    fast: Any = torch.backends.mha
    before = fast.get_fastpath_enabled()
    fast.set_fastpath_enabled(False)  # one fused operator that ONNX does not have
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # notices of the exporter about its own parts
            program = torch.onnx.export(
                network.to(memory_format=torch.contiguous_format),
                standalone.example_inputs(made, description, 2, 2), dynamo=True, verbose=False,
                input_names=list(made.inputs), output_names=["features"], dynamic_shapes=shapes,
            )  # fmt: skip
    except torch.onnx.OnnxExporterError as error:
        reason = str(error).strip().splitlines()[0]
        raise TellapartError(f"torch.onnx cannot write this network ({reason}); leave out --onnx") from error
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
    """The context of a signal as ONNX's own operator, which runs over any number of frames; torch's is unrolled there.

    ONNX orders the gates of a GRU z, r, h (torch: r, z, n), those of an LSTM i, o, f, c (torch: i, f, g, o).
    """

    inner: Tensor
    recurrent: Tensor
    bias: Tensor

    def __init__(self, context: nn.RNNBase) -> None:
        super().__init__()
        require(hasattr(torch.onnx, "ops"), "--onnx of sounds and series needs torch 2.8 or later; leave it out")
        self.kind, self.width = context.mode, context.hidden_size
        order = (1, 0, 2) if self.kind == "GRU" else (0, 3, 1, 2)

        def ordered(name: str) -> Tensor:
            parts = context.get_parameter(f"{name}_l0").detach().chunk(len(order))
            return torch.cat([parts[i] for i in order])[None]

        self.register_buffer("inner", ordered("weight_ih"))
        self.register_buffer("recurrent", ordered("weight_hh"))
        self.register_buffer("bias", torch.cat([ordered("bias_ih"), ordered("bias_hh")], 1))

    def forward(self, x: Tensor) -> tuple[Tensor]:
        """(N, T, H) from frames (N, T, F)."""
        n, frames, _ = x.shape
        settings: dict[str, Any] = {"hidden_size": self.width}
        if self.kind == "GRU":
            settings["linear_before_reset"] = 1
        out = torch.onnx.ops.symbolic_multi_out(
            self.kind, (x.transpose(0, 1), self.inner, self.recurrent, self.bias), settings,
            dtypes=(x.dtype, x.dtype), shapes=((frames, 1, n, self.width), (1, n, self.width)), version=18,
        )  # fmt: skip
        return (out[0][:, 0].transpose(0, 1),)


EXAMPLE = '''"""python example.py {item} prints its features."""
import sys

import torch
from model import load, view

with torch.inference_mode():
    features = load()({star}view(sys.argv[1]))
print(features.shape, features[0].tolist())
'''
