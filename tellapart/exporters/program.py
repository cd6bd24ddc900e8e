"""Sound, series, sentence and patch encoders as programs that do not need tellapart.

A program is model.py of an exported folder: `load()` returns the network, `view(...)` preprocesses
an input. It is assembled from the source of the trained classes, so that each network is defined
once.

Shapes: N batch, C channels, P side of an image, T steps of a signal, L tokens, F width of the
features.
"""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..data import image_decoding, image_packing
from ..encoders import (
    AnyEncoder,
    Encoder,
    SequenceEncoder,
    TextEncoder,
    patches,
    sequence,
    text,
    vision,
)
from ..encoders.norms import without_batchnorm
from ..encoders.sequence import Frames
from ..errors import require
from ..runtime import schemas


class PatchNetwork(nn.Module):
    """Images (N, C, P, P) in 0..1 to the mean of their patches (N, F)."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, channels: int) -> None:
        super().__init__()
        self.backbone = network
        self.register_buffer("mean", torch.zeros(1, channels, 1, 1))
        self.register_buffer("std", torch.ones(1, channels, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        made: Tensor = self.backbone((images - self.mean) / self.std)
        return made


class SignalNetwork(nn.Module):
    """Signals (N, C, T) of one length to the mean of their context (N, F)."""

    mean: Tensor
    std: Tensor

    def __init__(self, frames: Frames, context: nn.Module, channels: int) -> None:
        super().__init__()
        self.frames, self.context = frames, context
        self.register_buffer("mean", torch.zeros(1, channels, 1))
        self.register_buffer("std", torch.ones(1, channels, 1))

    def forward(self, signal: Tensor) -> Tensor:
        x = ((signal - self.mean) / self.std)[:, :, None]
        for layer in self.frames.layers:
            x = layer(x)
        made: Tensor = self.context(x[:, :, 0].transpose(1, 2))[0].mean(1)
        return made


class SentenceNetwork(nn.Module):
    """Tokens (N, L) and their mask (N, L, False for padding) to sentence vectors (N, F)."""

    def __init__(self, body: Any, pooler: str) -> None:
        super().__init__()
        self.body: Any = body
        self.pooler = pooler

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        position = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
        layers: list[Tensor] = self.body(self.body.tokens(ids), mask, position)
        if self.pooler == "cls":
            return layers[-1][:, 0]
        last = _mean(layers[-1], mask)
        return last if self.pooler == "mean" else (_mean(layers[0], mask) + last) / 2


def _mean(x: Tensor, mask: Tensor) -> Tensor:
    return (x * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True).clamp_min(1)


@dataclass(frozen=True)
class Standalone:
    """An encoder that runs without tellapart.

    Attributes:
        program: the text of model.py.
        network: the network that the program builds, with its weights.
        inputs: names of its inputs, each with the names of the dimensions of variable size.
        item: placeholder of the argument of example.py, such as IMAGE.
        files: further files that the program reads, by name.
    """

    program: str
    network: nn.Module
    inputs: dict[str, dict[int, str]]
    item: str
    files: dict[str, str] = field(default_factory=dict)

    @property
    def weights(self) -> dict[str, Tensor]:
        """Weights by the names of `network`; for a transformers model, by those of its library."""
        inner = _transformers_model(self.network)
        return {
            name: v.detach().contiguous()
            for name, v in (inner or self.network).state_dict().items()
        }


def _loaded(made: Standalone, encoder: AnyEncoder) -> Standalone:
    """Return the program after loading the weights of the encoder into its network."""
    own = {k: v for k, v in encoder.state_dict().items() if not k.startswith("head.")}
    made.network.load_state_dict(own)
    made.network.eval()
    return made


def example_inputs(
    made: Standalone, description: dict[str, Any], batch: int, long: int = 0
) -> tuple[Tensor, ...]:
    """Return random inputs of the program.

    Args:
        made: the program.
        description: content of config.json.
        batch: number of inputs.
        long: extra length of signals (37 steps each) and sentences (1 token each).
    """
    draw = torch.Generator().manual_seed(batch + 1000 * long)
    if "images" in made.inputs:
        side = description["size"]
        return (torch.rand(batch, description["channels"], side, side, generator=draw),)
    if "signal" in made.inputs:
        steps = 32 * max(description["kernels"]) + 37 * long
        return (torch.rand(batch, description["channels"], steps, generator=draw) * 2 - 1,)
    tokens = min(description["max_length"], 4 + long)
    body: Any = made.network.get_submodule("body")
    ids = torch.randint(0, body.tokens.num_embeddings, (batch, tokens), generator=draw)
    lengths = torch.randint(1, tokens + 1, (batch, 1), generator=draw)
    lengths[0] = tokens
    return ids, torch.arange(tokens) < lengths


def of_patches(encoder: Encoder, description: dict[str, Any]) -> Standalone:
    """Return the program of an encoder of images as grids of patches.

    Args:
        encoder: a `PatchEncoder`.
        description: content of config.json.
    """
    check_description(description)
    channels, size, width = (description[name] for name in ("channels", "size", "width"))
    code = _sources(
        require, without_batchnorm, vision.BasicBlock, vision.SmallResNet, patches.Patches,
        PatchNetwork,
    )  # fmt: skip
    constants = {"LAYERS": patches.LAYERS, **reading_constants(description)}
    program = _program(
        "An encoder of images as grids of patches.", decoding_source() + "\n",
        "ConfigError = DataError = ValueError\n" + assigned(constants), code,
        [f"network = PatchNetwork(Patches({channels!r}, {size!r}, {width!r}), {channels!r})"],
        IMAGE_VIEW,
    )  # fmt: skip
    network = PatchNetwork(patches.Patches(channels, size, width), channels)
    return _loaded(Standalone(program, network, {"images": {0: "batch"}}, "IMAGE"), encoder)


def of_signals(
    encoder: SequenceEncoder, description: dict[str, Any], rate: int | None, fold: bool
) -> Standalone:
    """Return the program of an encoder of sounds or series.

    Args:
        encoder: the encoder of the run.
        description: content of config.json.
        rate: sample rate of sounds in Hz, None for series.
        fold: whether its BatchNorm is folded into its convolutions.
    """
    check_description(description)
    channels, width, kernels, strides, norm = (
        description[name] for name in ("channels", "width", "kernels", "strides", "norm")
    )
    context = "GRU" if description["context"] == "gru" else "LSTM"
    kernels, strides = tuple(kernels), tuple(strides)
    build = [
        f"frames = Frames({channels!r}, {width!r}, {kernels!r}, {strides!r}, {norm!r})",
        f"context = nn.{context}({width!r}, {description['context_width']!r}, batch_first=True)",
        f"network = SignalNetwork(frames, context, {channels!r})",
    ]
    if fold:
        build += ["network = fuse(network.eval())  # BatchNorm lies in the convolutions"]
    code = _sources(sequence.ChannelNorm, sequence._pad, Frames, SignalNetwork)
    imports = "import math\nfrom collections.abc import Sequence\n" + (
        SOUND_IMPORTS if rate else TABLE_IMPORTS
    )
    imports += "from torch.fx.experimental.optimization import fuse\n" if fold else ""
    first = f"Norm = str\n{assigned({'RATE': rate}) if rate else ''}"
    what = "sounds" if rate else "series"
    program = _program(
        f"An encoder of {what}.", imports, first, code, build, SOUND_VIEW if rate else TABLE_VIEW
    )  # fmt: skip
    network: nn.Module = SignalNetwork(
        Frames(channels, width, kernels, strides, norm),
        getattr(nn, context)(width, description["context_width"], batch_first=True), channels,
    )  # fmt: skip
    if fold:
        from torch.fx.experimental.optimization import fuse

        network = fuse(network.eval())
    inputs = {"signal": {0: "batch", 2: "steps"}}
    return _loaded(Standalone(program, network, inputs, "SOUND" if rate else "TABLE"), encoder)


def of_sentences(encoder: TextEncoder, description: dict[str, Any]) -> Standalone:
    """Return the program of an encoder of sentences.

    Args:
        encoder: the encoder of the run.
        description: content of config.json.
    """
    check_description(description)
    pooler, words = description["pooler"], encoder.tokenizer.get_vocab_size()
    width, layers, room = (description[name] for name in ("width", "layers", "max_length"))
    imports = "import inspect\nfrom typing import Any\n\n" + TEXT_IMPORTS
    if description["encoder"] == "small-transformer":
        body: nn.Module = text.SmallTransformer(words, width, layers, room, 0.0)
        code = _sources(require, text.SmallTransformer, SentenceNetwork, _mean)
        build = [f"body = SmallTransformer({words!r}, {width!r}, {layers!r}, {room!r}, 0.0)"]
    elif description["encoder"] == "bag-of-tokens":
        body = text.BagOfTokens(words, width, 0.0)
        code = _sources(text.BagOfTokens, SentenceNetwork, _mean)
        build = [f"body = BagOfTokens({words!r}, {width!r}, 0.0)"]
    else:
        body = text.Pretrained(encoder.body.model)
        code = _sources(text.Pretrained, SentenceNetwork, _mean)
        build = [
            "model = transformers.AutoModel.from_pretrained(HERE, trust_remote_code=False)",
            "body = Pretrained(model.float())",
        ]
        imports += "import transformers\n"
    program = _program(
        "An encoder of sentences.", imports,
        "ConfigError = ValueError\n" + assigned({"MAX_LENGTH": room}), code,
        [*build, f"network = SentenceNetwork(body, {pooler!r})"], TEXT_VIEW,
        weights=not isinstance(body, text.Pretrained),
    )  # fmt: skip
    names = {0: "batch", 1: "tokens"}
    encoder.tokenizer.no_padding()
    encoder.tokenizer.no_truncation()
    files = {"tokenizer.json": encoder.tokenizer.to_str()}
    network = SentenceNetwork(body, pooler)
    inputs = {"ids": names, "mask": names}
    return _loaded(Standalone(program, network, inputs, "'A SENTENCE'", files), encoder)


def transformers_config(made: Standalone) -> Any | None:
    """Return the configuration of a transformers network, None for any other network.

    Args:
        made: the program with its network.
    """
    inner = _transformers_model(made.network)
    return None if inner is None else inner.config


def _transformers_model(network: nn.Module) -> Any | None:
    body = getattr(network, "body", None)
    return body.model if isinstance(body, text.Pretrained) else None


def _sources(*parts: Any) -> str:
    """Return the source of classes and functions; `Backbone` becomes its base class nn.Module."""
    return "\n\n\n".join(
        inspect.getsource(part).replace("(Backbone)", "(nn.Module)").rstrip() for part in parts
    )


def decoding_source() -> str:
    """Return the source of the image decoding module, without its header."""
    text = inspect.getsource(image_decoding)
    return text.partition("from __future__ import annotations\n")[2].strip()


def check_description(description: dict[str, Any]) -> None:
    """Check the description of an encoder before it is written into a program.

    Args:
        description: content of config.json, and "reading" for images.

    Raises:
        RunError: a value has the wrong type or is out of range.
    """
    own = {name: value for name, value in description.items() if name != "reading"}
    schemas.check_encoder(own, "the description of the encoder")
    schemas.check(description.get("reading", {}), schemas.Reading, "how images are read")


def reading_constants(description: dict[str, Any]) -> dict[str, Any]:
    """Return the constants that `view` of an exported program reads images with.

    Args:
        description: content of config.json, and "reading" with "fit" and "ranges".
    """
    size, reading = int(description["size"]), description.get("reading", {})
    return {
        "SIZE": size,
        "SHORT": round(size * image_packing.MARGIN),
        "CHANNELS": int(description["channels"]),
        "FIT": str(reading.get("fit", "pad")),
        "RANGES": {
            str(kind): (float(low), float(high))
            for kind, (low, high) in (reading.get("ranges") or {}).items()
        },
    }


def assigned(values: dict[str, Any]) -> str:
    """Return assignments of values as lines of a program.

    Args:
        values: values by the names of the variables.
    """
    return "".join(f"{name} = {value!r}\n" for name, value in values.items())


def _program(
    title: str,
    imports: str,
    first: str,
    code: str,
    build: Iterable[str],
    view: str,
    *,
    weights: bool = True,
) -> str:
    read = [*build, LOADED] if weights else [*build]
    functional = "from torch.nn import functional as F\n"
    first = (functional if "F." in code else "") + "\nHERE = Path(__file__).parent\n" + first
    return PROGRAM.format(
        title=title, imports=imports, first=first, code=code, view=view,
        loaders="from safetensors.torch import load_file\n" if weights else "",
        build=textwrap.indent("\n".join([*read, "return network.eval()"]), "    "),
    )  # fmt: skip


LOADED = """weights = load_file(HERE / "model.safetensors")
network.load_state_dict(
    {name: w.float() if w.is_floating_point() else w for name, w in weights.items()}
)"""

PROGRAM = '''"""{title} load() gives it, view(...) prepares what it reads."""

from __future__ import annotations

from pathlib import Path
{imports}
import torch
{loaders}from torch import Tensor, nn
{first}

{code}


def load():
    """The network with its weights, in eval mode."""
{build}


{view}'''

IMAGE_VIEW = '''def view(file):
    """An image file as (1, C, P, P) in 0..1: short side resized to 1.15 P unless P, centre crop."""
    with open(file, "rb") as opened:
        short = SIZE if min(open_picture(opened).size) == SIZE else SHORT
        opened.seek(0)
        pixels = decode_image(opened, CHANNELS, short=short, fit=FIT, ranges=RANGES).image
    top, left = ((side - SIZE) // 2 for side in pixels.shape[:2])
    pixels = pixels[top : top + SIZE, left : left + SIZE]
    return torch.tensor(pixels).permute(2, 0, 1)[None] / 255
'''

SOUND_IMPORTS = """
import numpy as np
import soundfile
from scipy.signal import resample_poly
"""

SOUND_VIEW = '''def view(file):
    """A sound file as (1, 1, T) in -1..1: its channels averaged, at RATE Hz, in 16 bits."""
    samples, native = soundfile.read(file, dtype="float32", always_2d=True)
    mono = samples.mean(1)
    if native != RATE:
        shared = math.gcd(native, RATE)
        mono = resample_poly(mono, RATE // shared, native // shared)
    whole = np.clip(np.round(mono * 32768), -32768, 32767).astype(np.int16)
    return torch.from_numpy(whole)[None, None].float() / 32768
'''

TABLE_IMPORTS = """
import numpy as np
"""

TABLE_VIEW = '''def view(file):
    """A table (T, C) in a .npy, or in a .csv without a heading, as (1, C, T)."""
    if str(file).endswith(".npy"):
        table = np.load(file)
    else:
        table = np.loadtxt(file, delimiter=",", ndmin=2)
    return torch.tensor(table.reshape(len(table), -1).T[None], dtype=torch.float32)
'''

TEXT_IMPORTS = """import tokenizers
"""

TEXT_VIEW = '''def view(*sentences):
    """The tokens (N, L) of sentences and their mask (N, L), False for padding."""
    words = tokenizers.Tokenizer.from_file(str(HERE / "tokenizer.json"))
    words.enable_truncation(MAX_LENGTH)
    words.enable_padding()
    found = words.encode_batch(list(sentences))
    mask = torch.tensor([e.attention_mask for e in found]).bool()
    return torch.tensor([e.ids for e in found]), mask
'''
