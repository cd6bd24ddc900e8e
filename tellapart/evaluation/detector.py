"""Detection: the encoder as the backbone of torchvision's Faster R-CNN, scored by COCO AP.

Shapes: N images, O objects, C classes, F channels of a map.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..data.detection import BoxSource
from ..data.sampler import batch_at, generator
from ..encoders import Encoder
from ..encoders.vision import split_stages
from ..errors import MissingExtraError, require
from ..training.presets.detection import PRESETS as PRESETS
from ..training.presets.detection import DetectConfig as DetectConfig
from .stage_probe import has_maps

FPN_CHANNELS, HIDDEN = 64, 256
REGION = 7  # side of a region as the head sees it (14 in ResNet-C4, whose last stage halves it)


def detector(encoder: Encoder, classes: int, config: DetectConfig) -> nn.Module:
    """torchvision's Faster R-CNN around a copy of an encoder's backbone.

    Args: classes: C, without the background.
    Raises:
        ConfigError: a backbone that cannot be cut before its last stage ("c4" needs a ResNet).
    """
    from torchvision.models.detection import FasterRCNN
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
    from torchvision.ops import MultiScaleRoIAlign

    backbone = copy.deepcopy(encoder.backbone)
    _freeze(backbone, config)
    shared: dict[str, Any] = {
        "min_size": config.min_size, "max_size": config.max_size,
        "image_mean": encoder.mean.flatten().tolist(), "image_std": encoder.std.flatten().tolist(),
        "box_batch_size_per_image": config.regions,
        "rpn_pre_nms_top_n_train": 2 * config.proposals,
        "rpn_post_nms_top_n_train": config.proposals,
        "rpn_pre_nms_top_n_test": 2 * config.proposals,
        "rpn_post_nms_top_n_test": config.proposals,
    }  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        if config.head == "c4":
            body, last, channels, width = split_stages(backbone)
            net: nn.Module = _OneMap(body, channels)
            anchors = AnchorGenerator((config.sizes,), ((0.5, 1.0, 2.0),))
            network = FasterRCNN(
                net, rpn_anchor_generator=anchors, box_roi_pool=MultiScaleRoIAlign(["0"], REGION,
                2), box_head=_Pooled(last), box_predictor=FastRCNNPredictor(width, classes + 1),
                **shared,
            )  # fmt: skip
        else:
            net = _Pyramid(backbone, encoder)
            anchors = AnchorGenerator(
                tuple((s,) for s in _spread(config.sizes)), ((0.5, 1.0, 2.0),) * 3
            )
            network = FasterRCNN(
                net, rpn_anchor_generator=anchors, box_roi_pool=MultiScaleRoIAlign(["0", "1", "2"],
                REGION, 2), box_head=TwoMLPHead(FPN_CHANNELS * REGION**2, HIDDEN),
                box_predictor=FastRCNNPredictor(HIDDEN, classes + 1), **shared,
            )  # fmt: skip
    result: nn.Module = network.to(encoder.mean.device)
    return result


def train_detector(
    model: nn.Module,
    train: BoxSource,
    config: DetectConfig,
    *,
    progress: Callable[[int], None] | None = None,
) -> nn.Module:
    """Train a detector by SGD with a warm-up; images without an object are background.

    Args:
        model: as `detector`.
        train: images with boxes.
        config: the schedule.
        progress: called with the number of steps done.
    """
    device = next(model.parameters()).device
    optimizer = torch.optim.SGD(
        [p for p in model.parameters() if p.requires_grad],
        lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay,
    )  # fmt: skip
    model.train()
    for step in range(config.steps):
        rows = batch_at(step, len(train), min(config.batch_size, len(train)), config.seed)
        mirrored = (
            torch.rand(len(rows), generator=generator("detect", config.seed, step)) < config.flip
        )
        images, targets = zip(
            *(
                _example(train, int(r), bool(m), device)
                for r, m in zip(rows, mirrored, strict=True)
            ),
            strict=True,
        )
        rate = config.lr * min(1.0, (step + 1) / max(1, config.warmup))
        rate *= 0.1 ** sum(step >= share * config.steps for share in config.lr_steps)
        for group in optimizer.param_groups:
            group["lr"] = rate
        torch.manual_seed(
            config.seed * 1_000_003 + step
        )  # torchvision draws the regions it learns from
        loss = sum(model(list(images), list(targets)).values())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        if progress:
            progress(step + 1)
    return model.eval()


@torch.inference_mode()
def detect(model: nn.Module, source: BoxSource) -> list[dict[str, Tensor]]:
    """Per image {"boxes" (O, 4) x0 y0 x1 y1 in its pixels, "labels" (O,) from 0, "scores" (O,)}."""
    model.eval()
    device = next(model.parameters()).device
    detections = []
    for row in range(len(source)):
        out = {k: v.cpu() for k, v in model([source.image(row).to(device)])[0].items()}
        detections.append(out | {"labels": out["labels"] - 1})
    return detections


def average_precision(source: BoxSource, detections: list[dict[str, Tensor]]) -> dict[str, float]:
    """COCO's AP over IoU 0.5 to 0.95, AP50 and AP75, in [0, 1], by faster-coco-eval.

    Objects marked as ignored are neither asked for nor held against a detection.

    Raises:
        MissingExtraError: faster-coco-eval is not installed.
    """
    try:
        from faster_coco_eval import COCO, COCOeval_faster
    except ImportError as error:
        raise MissingExtraError("faster-coco-eval", "detect") from error
    marks: list[dict[str, Any]] = []
    boxes: list[dict[str, Any]] = []
    for row in range(len(source)):
        for box, label, out in zip(
            source.boxes[row], source.labels[row], source.ignored[row], strict=True
        ):
            mark = _coco_box(row, box, int(label)) | {
                "id": len(marks) + 1,
                "iscrowd": int(out),
                "ignore": int(out),
            }
            marks.append(mark | {"area": mark["bbox"][2] * mark["bbox"][3]})
        for box, label, score in zip(
            *(detections[row][k].tolist() for k in ("boxes", "labels", "scores")), strict=True
        ):
            boxes.append(_coco_box(row, box, int(label)) | {"score": score})
    if not boxes:
        return {"AP": 0.0, "AP50": 0.0, "AP75": 0.0}
    truth = COCO(
        {
            "images": [{"id": i + 1} for i in range(len(source))],
            "annotations": marks,
            "categories": [{"id": i + 1, "name": name} for i, name in enumerate(source.classes)],
        }
    )
    judged = COCOeval_faster(
        truth, truth.loadRes(boxes), iouType="bbox", print_function=lambda *_: None
    )
    judged.evaluate()
    judged.accumulate()
    judged.summarize()
    return {name: float(judged.stats[i]) for i, name in enumerate(("AP", "AP50", "AP75"))}


class _OneMap(nn.Module):
    """A backbone up to its last stage but one, as torchvision's detectors want it."""

    def __init__(self, body: nn.Module, channels: int) -> None:
        super().__init__()
        self.body, self.out_channels = body, channels

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.body(x)
        return out


class _Pooled(nn.Module):
    """The last stage on each region, averaged."""

    def __init__(self, stage: nn.Module) -> None:
        super().__init__()
        self.stage = stage

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.stage(x)
        return out.mean((2, 3))


class _Pyramid(nn.Module):
    """A feature pyramid over the maps of the last three stages."""

    def __init__(self, backbone: Any, encoder: Encoder) -> None:
        from torchvision.ops import FeaturePyramidNetwork

        super().__init__()
        self.backbone, self.out_channels = backbone, FPN_CHANNELS
        with torch.inference_mode():
            view = torch.zeros(1, encoder.mean.numel(), 64, 64, device=encoder.mean.device)
            require(
                has_maps(encoder, 64),
                "this network gives no feature maps of images of any size; take a ResNet",
            )
            maps = copy.deepcopy(backbone).eval().maps(view)
        require(
            len(maps) >= 3, f"a pyramid needs three stages or more, this network has {len(maps)}"
        )
        self.pyramid = FeaturePyramidNetwork([m.shape[1] for m in maps[-3:]], FPN_CHANNELS)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        maps = self.backbone.maps(x)[-3:]
        out: dict[str, Tensor] = self.pyramid({str(i): m for i, m in enumerate(maps)})
        return out


def _freeze(backbone: Any, config: DetectConfig) -> None:
    stages = backbone.stages()
    require(
        config.frozen_stages < len(stages),
        f"--frozen-stages {config.frozen_stages} of {len(stages)} stages",
    )
    for stage in stages[: config.frozen_stages]:
        stage.requires_grad_(False)
    frozen = {
        norm
        for part in ([backbone] if config.freeze_bn else stages[: config.frozen_stages])
        for norm in part.modules()
    }
    _freeze_norms(backbone, frozen)


def _freeze_norms(part: nn.Module, chosen: set[nn.Module]) -> None:
    """Put a BatchNorm of fixed statistics and weights in the place of each that is chosen."""
    from torchvision.ops import FrozenBatchNorm2d

    for name, norm in list(part.named_modules()):
        if isinstance(norm, nn.BatchNorm2d) and norm in chosen:
            fixed = FrozenBatchNorm2d(norm.num_features, norm.eps)
            fixed.load_state_dict(
                {k: v for k, v in norm.state_dict().items() if k != "num_batches_tracked"}
            )
            parent, _, own = name.rpartition(".")
            setattr(part.get_submodule(parent), own, fixed)


def _example(
    source: BoxSource, row: int, mirrored: bool, device: torch.device
) -> tuple[Tensor, dict[str, Tensor]]:
    image, keep = source.image(row), ~source.ignored[row]
    boxes = torch.from_numpy(source.boxes[row][keep].copy())
    if mirrored:
        image = image.flip(2)
        boxes = torch.stack(
            [image.shape[2] - boxes[:, 2], boxes[:, 1], image.shape[2] - boxes[:, 0], boxes[:, 3]],
            1,
        )
    labels = torch.from_numpy(source.labels[row][keep]) + 1  # 0 is the background
    return image.to(device), {"boxes": boxes.to(device), "labels": labels.to(device)}


def _coco_box(row: int, box: Any, label: int) -> dict[str, Any]:
    x0, y0, x1, y1 = (float(v) for v in box)
    return {"image_id": row + 1, "category_id": label + 1, "bbox": [x0, y0, x1 - x0, y1 - y0]}


def _spread(sizes: tuple[int, ...]) -> list[int]:
    """Three anchor sides, one for each level of the pyramid."""
    return [sizes[0], sizes[len(sizes) // 2], sizes[-1]]


def summary(scores: dict[str, dict[str, float]]) -> str:
    """Which row is best by AP, in a sentence."""
    best = max(scores, key=lambda row: scores[row]["AP"])
    rest = ", ".join(f"{row} {s['AP'] * 100:.1f}" for row, s in scores.items() if row != best)
    return (
        f"Best by AP: {best} {scores[best]['AP'] * 100:.1f} ({rest}). One training per row, "
        "without an interval."
    )
