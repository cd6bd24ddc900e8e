"""The options of each method, free of torch so that the command line can list them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from ..errors import require, unknown
from ..functional.checks import check_margin, check_temperature
from ..functional.choices import Mining, Reduction

Negatives = Literal["batch", "others", "sequence", "label", "label-others"]


@dataclass(frozen=True)
class Options:
    """The checks that the options of every method share: temperature and margin.

    Raises:
        ConfigError: an option outside its range.
    """

    def __post_init__(self) -> None:
        if hasattr(self, "temperature"):
            check_temperature(self.temperature, "--objective.temperature")
        if hasattr(self, "margin"):
            check_margin(self.margin, "--objective.margin")

    @property
    def uses_labels(self) -> bool:
        """Whether a training with these options reads labels."""
        return False


@dataclass(frozen=True)
class InstDiscOptions(Options):
    """Options of `instdisc`.

    Args:
        temperature: tau > 0; the lower, the more the nearest memory rows count.
        loss: softmax: eq. 2 over the whole bank, exact; nce: eq. 3-7 with `negatives` samples.
        negatives: m, noise samples of nce.
        noise: one noise sample for the batch (one matrix product), or one per instance as in
            the paper.
        exclude_positive: never draw an instance as its own noise; shared noise then draws no
            instance of the batch.
        z: ln Z is an exponential average, or frozen after `z_batches` batches as in the paper.
        z_momentum: momentum of the average, per step.
        z_batches: number of batches whose mean is the frozen estimate.
        proximal: lambda of eq. 10: pulls each embedding towards its own memory.
        bank_momentum: weight of the old row in each update (nce_m of the authors' code; not the
            proximal term).
        bank_start: first rows: random unit rows (paper), or one pass of the untrained encoder.
        bank_dtype: storage type of the bank.
    """

    temperature: float = 0.07
    loss: Literal["softmax", "nce"] = "softmax"
    negatives: int = 4096
    noise: Literal["shared", "instance"] = "shared"
    exclude_positive: bool = True
    z: Literal["average", "frozen"] = "average"
    z_momentum: float = 0.99
    z_batches: int = 1
    proximal: float = 0.0
    bank_momentum: float = 0.5
    bank_start: Literal["random", "encoder"] = "random"
    bank_dtype: Literal["float32", "bfloat16", "float16"] = "float32"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.negatives > 0, f"--objective.negatives must be above 0, got {self.negatives}")
        require(
            0 <= self.z_momentum < 1,
            f"--objective.z-momentum must lie in [0, 1), got {self.z_momentum}",
        )
        require(self.z_batches > 0, f"--objective.z-batches must be above 0, got {self.z_batches}")
        require(self.proximal >= 0, f"--objective.proximal must be 0 or more, got {self.proximal}")
        require(
            0 <= self.bank_momentum < 1,
            f"--objective.bank-momentum must be in [0, 1), got {self.bank_momentum}",
        )


@dataclass(frozen=True)
class ExemplarOptions(Options):
    """Options of `exemplar`.

    Args:
        temperature: tau > 0 of the inner products with the trained weights.
    """

    temperature: float = 0.07


@dataclass(frozen=True)
class SpreadOptions(Options):
    """Options of `spread`.

    Args:
        temperature: tau > 0.
        loss: paper: eq. 3-7; released: the authors' code (both views are anchors, stop-gradient,
            2N - 1 denominators).
    """

    temperature: float = 0.1
    loss: Literal["paper", "released"] = "paper"


@dataclass(frozen=True)
class MoCoOptions(Options):
    """Options of `moco`.

    Args:
        temperature: tau > 0: 0.07 in v1, 0.2 in v2.
        queue: K, negatives kept from earlier batches; any size.
        momentum: of the key encoder, per step: 0.999 for long trainings.
        symmetric: each view is the query once; doubles the cost of a step.
        shuffle: BatchNorm normalises keys in other groups than their queries, so that its
            statistics do not identify the pair.
    """

    temperature: float = 0.2
    queue: int = 4096
    momentum: float = 0.99
    symmetric: bool = False
    shuffle: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.queue > 0, f"--objective.queue must be above 0, got {self.queue}")
        require(
            0 <= self.momentum <= 1, f"--objective.momentum must lie in [0, 1], got {self.momentum}"
        )


@dataclass(frozen=True)
class SimCLROptions(Options):
    """Options of `simclr`.

    Args:
        temperature: tau > 0; 0.5 suits small images and long trainings, 0.1 ImageNet.
    """

    temperature: float = 0.5


@dataclass(frozen=True)
class SupConOptions(Options):
    """Options of `supcon`.

    Args:
        temperature: tau > 0.
        reduction: L_out or L_in: the mean over positives outside or inside the logarithm.
        views: views of each image.
    """

    temperature: float = 0.1
    reduction: Reduction = "out"
    views: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.views >= 1, f"--objective.views must be 1 or more, got {self.views}")

    @property
    def uses_labels(self) -> bool:
        return True


@dataclass(frozen=True)
class MarginOptions(Options):
    """Options of `margin`.

    Args:
        margin: > 0, the distance beyond which a dissimilar pair has no force.
        pairs: similar pairs: two views of an image; an image and its nearest by pixels; images
            of one class.
        neighbours: number per image for pairs = neighbours, by Euclidean distance of centred
            pixels.
        sphere: normalise the outputs to unit length; the paper does not.
    """

    margin: float = 1.0
    pairs: Literal["augmentation", "neighbours", "labels"] = "augmentation"
    neighbours: int = 5
    sphere: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.neighbours >= 1, f"--objective.neighbours must be 1 or more, got {self.neighbours}"
        )

    @property
    def uses_labels(self) -> bool:
        return self.pairs == "labels"


@dataclass(frozen=True)
class TripletOptions(Options):
    """Options of `triplet`.

    Args:
        margin: > 0, of squared distances between unit rows (0 to 4).
        mining: semi-hard: negatives farther than the positive, within the margin; hard: nearer
            ones; all; batch-hard: the worst pair of each anchor.
        positives: images of the same class, or two views of one image (no labels used).
    """

    margin: float = 0.2
    mining: Mining = "semi-hard"
    positives: Literal["labels", "views"] = "labels"

    @property
    def uses_labels(self) -> bool:
        return self.positives == "labels"


@dataclass(frozen=True)
class NCEOptions(Options):
    """Options of `nce`.

    Args:
        vocabulary: a word per image, or per class (uses labels).
        temperature: tau > 0 of the inner products with the trained words.
        negatives: k, noise words drawn for the batch.
        noise: uniform, or proportional to the count of each word to the `power`.
        power: exponent of the unigram counts, 0 or more.
        z: ln Z is trained, or fixed at `log_z`.
        log_z: ln Z at the start; default: ln S + 1 / (2 D tau^2), that of random unit rows.
    """

    vocabulary: Literal["instances", "classes"] = "instances"
    temperature: float = 0.1
    negatives: int = 256
    noise: Literal["uniform", "unigram"] = "unigram"
    power: float = 1.0
    z: Literal["learned", "fixed"] = "learned"
    log_z: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.negatives > 0, f"--objective.negatives must be above 0, got {self.negatives}")
        finite = self.log_z is None or math.isfinite(self.log_z)
        require(finite, f"--objective.log-z must be a finite number, got {self.log_z}")
        require(
            0 <= self.power < math.inf, f"--objective.power must be 0 or more, got {self.power}"
        )

    @property
    def uses_labels(self) -> bool:
        return self.vocabulary == "classes"


@dataclass(frozen=True)
class CPCOptions(Options):
    """Options of `cpc`.

    Args:
        steps: K, number of frames predicted, each by its own W_k.
        negatives: M, negative frames drawn for each sequence.
        draw: source of the negatives: batch; others (not the own sequence); sequence (the own);
            label, label-others (those of the same label, with or without the own sequence).
        predictor: W_k c_t as in the paper, or with one causal attention layer over the context.
        first: nearest frame that is predicted; 2 on images, whose neighbours overlap.
    """

    steps: int = 12
    negatives: int = 128
    draw: Negatives = "batch"
    predictor: Literal["linear", "transformer"] = "linear"
    first: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("steps", "negatives", "first"):
            require(
                getattr(self, name) >= 1,
                f"--objective.{name} must be 1 or more, got {getattr(self, name)}",
            )
        require(
            self.first <= self.steps,
            f"--objective.first {self.first} must not exceed --objective.steps",
        )
        if self.draw not in get_args(Negatives):
            raise unknown("--objective.draw", self.draw, get_args(Negatives))
        if self.predictor not in ("linear", "transformer"):
            raise unknown("--objective.predictor", self.predictor, ("linear", "transformer"))

    @property
    def uses_labels(self) -> bool:
        return self.draw.startswith("label")


@dataclass(frozen=True)
class SimCSEOptions(Options):
    """Options of `simcse`.

    Args:
        temperature: tau > 0.
        hard_negative_weight: added to the logit of a pair's own hard negative: ln alpha for a
            weight alpha.
        mlm: weight of the added masked-language-model loss; 0.1 in the paper's ablation.
        mlm_rate: share of the tokens masked for it.
        same_mask: both passes drop the same values; it fails in the paper (Table 3).
    """

    temperature: float = 0.05
    hard_negative_weight: float = 0.0
    mlm: float = 0.0
    mlm_rate: float = 0.15
    same_mask: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.mlm >= 0, f"--objective.mlm must be 0 or more, got {self.mlm}")
        require(
            0 < self.mlm_rate < 1, f"--objective.mlm-rate must lie in (0, 1), got {self.mlm_rate}"
        )


OPTIONS: dict[str, type[Options]] = {
    "instdisc": InstDiscOptions,
    "exemplar": ExemplarOptions,
    "spread": SpreadOptions,
    "moco": MoCoOptions,
    "simclr": SimCLROptions,
    "supcon": SupConOptions,
    "margin": MarginOptions,
    "triplet": TripletOptions,
    "nce": NCEOptions,
    "cpc": CPCOptions,
    "simcse": SimCSEOptions,
}
