"""A scikit-learn transformer that learns features: `Embedder().fit(X).transform(X)` on arrays.

Shapes: S instances, H and W pixels, C channels, F values per row, D width of the features.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import (
    check_consistent_length,
    check_is_fitted,
    column_or_1d,
    validate_data,
)

from ..data import SequenceSource, Source
from ..data.builtin import Labelled, as_source
from ..data.sequences import Packed
from ..data.source import Array, fingerprint
from ..encoders.inference import Output, outputs
from ..errors import ConfigError, DataError, unknown
from ..objectives import METHODS
from ..runtime.console import Console
from . import presets, session
from .config import CommonConfig
from .resolve import resolve
from .run import Run, require_new
from .trainer import Trainer

LEAST = 8  # pixels: the smallest image side that the networks can halve three times
LONG = 64  # steps: rows of this length or more get one frame per four steps
KEPT = 0.75  # share of a row that a view shows


class Embedder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]  # untyped there
    """Learn an encoder from arrays by instance discrimination; `transform` returns features.

    X is (S, H, W) or (S, H, W, C) images, or (S, F) rows. With `image_shape` a row is a flattened
    image; without, it is a series of F steps (a spectrum, a day of measurements) whose order
    matters. Tables whose columns have no order are not supported.

    Images of bytes (uint8) are used unchanged; other numbers are scaled to 0..255 by the minimum
    and maximum of the data of `fit`, and rounded. Images that are not square are cropped to the
    centre square. Rows keep their values.

    Args:
        method: a name of `objectives.METHODS`.
        epochs: passes over X.
        image_shape: (H, W) or (H, W, C) of the rows; None: rows are series.
        output: "features" (for downstream use) or "embedding" (the unit-norm rows of the loss).
        seed: the same seed gives the same encoder on one machine.
        options: fields of `TrainConfig` (images) or `SequenceConfig` (rows) that override the
            preset of the method: {"encoder": "timm/resnet18", "lr": 0.01}; `objective` may be a
            dict of options of the method.
        out: new or empty folder in which the training is saved as a run; None: nothing is saved.

    Attributes:
        encoder_: the torch encoder.
        losses_: loss of each step, in nats (of the logged steps only, with `out`).
        chance_: the loss of an untrained encoder in nats, None without a closed form.
        classes_: the labels, for methods that learn from labels.

    Raises:
        ValueError: X, y or a setting is invalid.
        TrainingError: the loss is not a number.

    Example:

    >>> images = np.random.default_rng(0).integers(0, 256, (20, 8, 8), np.uint8)
    >>> Embedder(epochs=1).fit(images).transform(images).shape
    (20, 64)
    >>> rows = images.reshape(20, 64) / 255
    >>> Embedder("simclr", epochs=1, image_shape=(8, 8)).fit_transform(rows).shape
    (20, 64)
    """

    def __init__(
        self,
        method: str = "instdisc",
        *,
        epochs: float = 10.0,
        image_shape: tuple[int, ...] | None = None,
        output: Output = "features",
        seed: int = 0,
        options: dict[str, Any] | None = None,
        out: str | Path | None = None,
    ) -> None:
        self.method = method
        self.epochs = epochs
        self.image_shape = image_shape
        self.output = output
        self.seed = seed
        self.options = options
        self.out = out

    def fit(self, X: Any, y: Any = None) -> Embedder:
        """Train the encoder.

        Args:
            X: images (S, H, W) or (S, H, W, C), or rows (S, F).
            y: labels (S,), read only by methods that learn from labels (supcon, triplet).

        Returns:
            This estimator.
        """
        if self.method not in METHODS:
            raise unknown("method", self.method, METHODS)
        if self.output not in ("features", "embedding"):
            raise unknown("output", str(self.output), ("features", "embedding"))
        values = self._checked(X, reset=True)
        if len(values) < 2:
            raise DataError("training needs 2 instances or more, got 1 sample")
        config = self._config(values)
        labels, classes = self._labels(y, len(values), config)
        self.shape_, self.range_ = values.shape[1:], _range(values)
        source = self._source(values, labels, tuple(map(str, classes)))
        trainer = Trainer(self.method, config, source)
        if self.out is None:
            losses = [step.loss for step in trainer]
        else:
            losses = _kept(Path(self.out), trainer, self.method, config, source)
        self.encoder_ = trainer.result.eval()
        self.losses_, self.chance_ = losses, trainer.chance
        if labels is not None:
            self.classes_ = classes
        self._n_features_out = self._embedded(values[:1]).shape[1]
        return self

    def transform(self, X: Any) -> Array:
        """Return the features (S, D) of X as float32; rows do not depend on each other.

        Args:
            X: instances of the same shape as in `fit`.
        """
        check_is_fitted(self)
        values = self._checked(X, reset=False)
        if values.shape[1:] != self.shape_:
            raise DataError(
                f"instances of shape {self.shape_} are expected as in fit, got {values.shape[1:]}"
            )
        return self._embedded(values)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.target_tags.required = self._learns_from_labels()
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags

    def _checked(self, X: Any, *, reset: bool) -> Array:
        """Return X validated, as (S, H, W, C) images or (S, F) series."""
        values: Array = validate_data(
            self,
            X,
            reset=reset,
            allow_nd=True,
            dtype="numeric",
            ensure_min_samples=1,
            ensure_min_features=1,
        )
        if values.ndim > 4:
            raise DataError(
                f"(S, H, W), (S, H, W, C) or (S, F) is needed, got {values.ndim} dimensions"
            )
        if values.ndim == 2 and self.image_shape is not None:
            shape = tuple(self.image_shape)
            if len(shape) not in (2, 3) or math.prod(shape) != values.shape[1]:
                raise ConfigError(
                    f"image_shape {shape} is not (H, W) or (H, W, C) of {values.shape[1]} values"
                )
            values = values.reshape(len(values), *shape)
        if values.ndim == 2 and values.shape[1] < 2:
            raise DataError(f"a series needs 2 steps or more, got n_features = {values.shape[1]}")
        return values[..., None] if values.ndim == 3 else values

    def _learns_from_labels(self) -> bool:
        """Return whether `fit` requires y; invalid settings are reported by `fit`."""
        try:
            config = self._config(np.zeros((2, LEAST, LEAST, 1)))
        except ConfigError:
            return False
        return config.objective.uses_labels

    def _labels(self, y: Any, count: int, config: CommonConfig) -> tuple[Array | None, Array]:
        """Return y as class indices (S,) and the classes; None and () if labels are not used."""
        if not config.objective.uses_labels:
            return None, np.zeros(0)
        if y is None:
            raise ConfigError(f"{self.method} requires y to be passed, but the target y is None")
        names = column_or_1d(y, warn=True)
        check_consistent_length(np.empty(count), names)
        check_classification_targets(names)
        classes, labels = np.unique(names, return_inverse=True)
        return labels.astype(np.int64), classes

    def _embedded(self, values: Array) -> Array:
        """Return the features (S, D) of validated values."""
        found: Array = outputs(self.encoder_, self._source(values, None, ()), (self.output,))[
            self.output
        ].numpy()
        return found

    def _source(self, values: Array, labels: Array | None, classes: tuple[str, ...]) -> Source:
        """Return values as a source in memory."""
        if values.ndim == 2:
            return _series(values, labels, classes)
        images = _bytes(values, *self.range_)
        parts = {"train": np.arange(len(images))}
        known = np.full(len(images), -1, np.int64) if labels is None else labels
        return as_source("arrays", Labelled(images, known, classes, parts, ""), self._size(values))

    def _size(self, values: Array) -> int:
        """Return the side of a view of images, in pixels."""
        return int((self.options or {}).get("image_size") or max(LEAST, min(values.shape[1:3])))

    def _config(self, values: Array) -> CommonConfig:
        """Return the preset of the method for this kind of data, `epochs`, `seed` and options."""
        options = dict(self.options or {})
        for name in options.keys() & {"epochs", "seed"}:
            raise ConfigError(f"{name!r} is a parameter of the Embedder, not one of its options")
        options |= {"epochs": self.epochs, "seed": self.seed}
        if values.ndim == 2:
            return resolve(self.method, "", None, _of_series(self.method, values.shape[1]), options)
        base = presets.named(presets.name_for(self.method, "images:"))
        return resolve(
            self.method, "images:", None, base, options | {"image_size": self._size(values)}
        )


def _kept(
    folder: Path, trainer: Trainer, method: str, config: CommonConfig, source: Source
) -> list[float]:
    """Train into a run folder and return the logged losses."""
    require_new(folder)
    run = Run.create(folder, session.manifest(method, config, source, source))
    session.train_into(run, trainer, Console(quiet=True))
    return [row["loss"] for row in run.metrics()]


def _of_series(method: str, steps: int) -> CommonConfig:
    """Return settings for rows of `steps` values: a small network, views of 3/4 of a row."""
    try:
        base = presets.named(presets.name_for(method, "series:"))
    except ConfigError:  # no preset for series: objective as for images, the rest as for simclr
        objective = presets.named(presets.name_for(method, "images:")).objective
        base = replace(presets.named("simclr_series"), objective=objective)
    strides = (2, 2) if steps >= LONG else (1, 1)
    window = max(2 * math.prod(strides), round(KEPT * steps))
    made: CommonConfig = replace(
        base, width=64, context_width=64, kernels=(4, 4) if steps >= LONG else (3, 3),
        strides=strides, window=window,
        band_reject=0.0, batch_size=256,
    )  # fmt: skip
    return made


def _series(values: Array, labels: Array | None, classes: tuple[str, ...]) -> SequenceSource:
    """Return rows (S, F) as a source of one-channel series."""
    count, steps = values.shape
    rows = np.arange(count)
    ids = [f"{i:05d}" for i in rows]
    flat = np.array(values, np.float32).reshape(-1, 1)
    packed = Packed(
        flat, rows * steps, np.full(count, steps), rows, np.zeros(count, np.int64), [], []
    )
    return SequenceSource(
        name="arrays", all_ids=ids, all_labels=labels, classes=classes, parts={},
        fingerprint=fingerprint(flat, ids, labels), packed=packed, kind="series",
    )  # fmt: skip


def _range(values: Array) -> tuple[float, float]:
    """Return the values that are mapped to 0 and 255."""
    if values.dtype == np.uint8:
        return 0.0, 255.0
    low, high = float(values.min()), float(values.max())
    return low, high if high > low else low + 1.0


def _bytes(values: Array, low: float, high: float) -> Array:
    """Return images as uint8: `low` becomes 0, `high` 255, values beyond are clipped."""
    if values.dtype == np.uint8 and (low, high) == (0.0, 255.0):
        return np.ascontiguousarray(values)
    scaled: Array = np.clip((values.astype(np.float64) - low) / (high - low), 0, 1) * 255
    return np.round(scaled).astype(np.uint8)
