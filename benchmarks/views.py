"""Views per second on one core: ours against lightly's SimCLRTransform, the same operations and
strengths.

Crop (area 0.08 to 1), mirror, colour jitter, gray, blur. lightly gets decoded PIL images, its own
input, and makes two views a call; both end in float tensors, neither normalises. `pip install
'tellapart[bench]'`.
"""

from __future__ import annotations

import numpy as np
import torch
from common import alternate, median, write
from lightly.transforms import SimCLRTransform
from PIL import Image

from tellapart.views.images import ImageViews


def main() -> None:
    """32 px from 32 px, and 224 px from 258 px (short side packed at 1.15)."""
    torch.set_num_threads(1)
    rows = {}
    for size, side, ours_n, theirs_n in ((32, 32, 256, 64), (224, 258, 32, 16)):
        pixels = np.random.default_rng(0).integers(
            0, 256, (ours_n, side // 8 + 1, side // 8 + 1, 3), dtype=np.uint8
        )
        pictures = [
            Image.fromarray(p).resize((side, side), Image.Resampling.BICUBIC) for p in pixels
        ]
        batch = torch.from_numpy(np.stack([np.asarray(p) for p in pictures])).permute(0, 3, 1, 2)
        views = ImageViews(
            size,
            area=(0.08, 1.0),
            jitter=0.8,
            brightness=0.8,
            contrast=0.8,
            saturation=0.8,
            hue=0.2,
            grayscale=0.2,
            blur=0.5,
        )
        generator = torch.Generator().manual_seed(0)
        transform = SimCLRTransform(input_size=size, normalize=None)

        def ours(views=views, batch=batch, generator=generator) -> None:
            views(batch, generator)

        def theirs(transform=transform, pictures=pictures, n=theirs_n) -> None:
            for picture in pictures[:n]:
                transform(picture)

        seconds = alternate({"ours": ours, "lightly": theirs})
        a, b = ours_n / median(seconds["ours"]), 2 * theirs_n / median(seconds["lightly"])
        rows[f"{size} px"] = {
            "ours, views/s": round(a),
            "lightly, views/s": round(b),
            "ratio": round(a / b, 1),
        }
    write("views", rows)


if __name__ == "__main__":
    main()
