"""Every estimator of mutual information on a Gaussian whose information is known, and on the cube
of one side.

The protocol of CLUB's authors (Cheng 2020, sec. 4.1): x, y of 20 dimensions, correlation rho in
each; I = 2, 4, 6, 8, 10 nats, 4,000 steps each, the network carried from level to level; batches of
64, Adam 0.005, the estimate taken before each update; bias, variance and mean squared error over
the last 500. Beside it the exact values. Cubing y changes no information. Then each upper bound is
minimised: the correlation of two dimensions, I = 1.58, is learned.

    python studies/mutual_information.py

writes studies/mutual_information.json and docs/images/mutual_information.svg.
"""

from __future__ import annotations

import json
import math
import sys
import time
from pathlib import Path

import torch

from tellapart.functional import mutual_information as mi

HERE = Path(__file__).resolve().parent
WIDTH, LEVELS, STEPS, BATCH, LAST = 20, (2.0, 4.0, 6.0, 8.0, 10.0), 4000, 64, 500
ROWS = [(name, 64) for name in mi.ESTIMATORS] + [
    ("club", 7),
    ("leave-one-out", 7),
]  # 7: the authors' bottleneck
MINIMISED = ("vub", "club", "club, sampled", "leave-one-out")


def sample(
    rho: float, generator: torch.Generator, cubic: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """x, y (N, 20) of correlation rho."""
    x, noise = (torch.randn(BATCH, WIDTH, generator=generator) for _ in range(2))
    y = rho * x + math.sqrt(1 - rho**2) * noise
    return x, y**3 if cubic else y


def curve(name: str, hidden: int, cubic: bool) -> list[float]:
    """The estimate at every step of all levels."""
    generator = torch.Generator().manual_seed(0)
    estimator = mi.Estimator(name, WIDTH, WIDTH, hidden=hidden)
    optimizer = torch.optim.Adam([p for p in estimator.parameters() if p.requires_grad], 5e-3)
    found = []
    for level in LEVELS:
        rho = mi.correlation_of(level, WIDTH)
        for _ in range(STEPS):
            x, y = sample(rho, generator, cubic)
            with torch.no_grad():
                found.append(float(estimator(x, y)))
            optimizer.zero_grad(set_to_none=True)
            estimator.learning_loss(x, y).backward()
            optimizer.step()
    return found


def summary(values: list[float]) -> dict[str, dict[str, float]]:
    """Mean, bias, variance and mean squared error of the last steps of each level."""
    rows = {}
    for i, level in enumerate(LEVELS):
        last = torch.tensor(values[(i + 1) * STEPS - LAST : (i + 1) * STEPS], dtype=torch.float64)
        rows[f"{level:g}"] = {
            "mean": round(float(last.mean()), 3),
            "bias": round(float(last.mean()) - level, 3),
            "variance": round(float(last.var()), 3),
            "mse": round(float((last - level).square().mean()), 3),
        }
    return rows


def minimised(name: str, steps: int = 3300) -> dict[str, float]:
    """The true information of two pairs whose correlation is learned to make the estimate small (I
    = 1.58 at first).
    """
    generator = torch.Generator().manual_seed(0)
    raw = torch.nn.Parameter(torch.atanh(torch.full((2,), mi.correlation_of(1.58, 2))))
    estimator = mi.Estimator(name, 2, 2, hidden=16)
    outer = torch.optim.Adam([raw], 1e-3)
    inner = torch.optim.Adam([p for p in estimator.parameters() if p.requires_grad], 5e-3)

    def drawn() -> tuple[torch.Tensor, torch.Tensor]:
        x, noise = (torch.randn(100, 2, generator=generator) for _ in range(2))
        rho = torch.tanh(raw)
        return x, rho * x + (1 - rho**2).sqrt() * noise

    for _ in range(steps):
        for _ in range(5):
            with torch.no_grad():
                x, y = drawn()
            inner.zero_grad(set_to_none=True)
            estimator.learning_loss(x, y).backward()
            inner.step()
        outer.zero_grad(set_to_none=True)
        estimator(*drawn()).backward()
        outer.step()
    rho = torch.tanh(raw.detach())
    return {"start": 1.58, "end": round(float(-0.5 * torch.log1p(-(rho**2)).sum()), 4)}


PANEL, GAP, COLUMNS, HIGH = (
    (190, 120),
    26,
    4,
    20.0,
)  # of the picture: pixels, and the nats at the top of a panel


def place(corner: tuple[int, int], step: float, value: float) -> str:
    """Where a value at a step stands in the panel with that upper left corner."""
    x = corner[0] + PANEL[0] * step / (STEPS * len(LEVELS))
    return f"{x:.1f},{corner[1] + PANEL[1] * (1 - min(max(value, 0.0), HIGH) / HIGH):.1f}"


def line(corner: tuple[int, int], values: list[float], colour: str) -> str:
    """A curve, smoothed over about 100 steps."""
    smooth, points = values[0], []
    for step, value in enumerate(values):
        smooth += (value - smooth) / 100
        if step % 100 == 99:
            points.append(place(corner, step, smooth))
    return (
        f'<polyline points="{" ".join(points)}" fill="none" stroke="{colour}" stroke-width="1.2"/>'
    )


def picture(curves: dict[str, dict[str, list[float]]], path: Path) -> None:
    """Small panels, one for each estimator: the truth as steps, the estimate smoothed; gaussian and
    cubic.
    """
    parts = []
    for i, (name, both) in enumerate(curves.items()):
        corner = (i % COLUMNS) * (PANEL[0] + GAP) + 30, (i // COLUMNS) * (PANEL[1] + 2 * GAP) + 30
        frame = f'x="{corner[0]}" y="{corner[1]}" width="{PANEL[0]}" height="{PANEL[1]}"'
        truth = " ".join(
            f"{place(corner, k * STEPS, v)} {place(corner, (k + 1) * STEPS, v)}"
            for k, v in enumerate(LEVELS)
        )
        parts.append(f'<text x="{corner[0]}" y="{corner[1] - 8}">{name}</text>')
        parts.append(f'<rect {frame} fill="none" stroke="#ccc"/>')
        parts.append(f'<polyline points="{truth}" fill="none" stroke="#222" stroke-width="1.5"/>')
        parts += [
            line(corner, v, c) for c, v in zip(("#1f77b4", "#d9822b"), both.values(), strict=True)
        ]
    width = COLUMNS * (PANEL[0] + GAP) + 30
    height = -(-len(curves) // COLUMNS) * (PANEL[1] + 2 * GAP) + 30
    said = "black: the truth, 2 to 10 nats (a panel ends at 20); blue: gaussian; orange: cubic"
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        'font-family="sans-serif" '
        f'font-size="12"><rect width="100%" height="100%" fill="white"/>{"".join(parts)}'
        f'<text x="30" y="{height - 8}">{said}</text></svg>\n'
    )


def main() -> None:
    """All rows; then the minimisation."""
    torch.set_num_threads(1)
    exact = {f"{i:g}": round(mi.exact_club(mi.correlation_of(i, WIDTH), WIDTH), 2) for i in LEVELS}
    found: dict[str, object] = {"exact CLUB": exact, "ln N": round(math.log(BATCH), 3)}
    curves: dict[str, dict[str, list[float]]] = {}
    began = time.monotonic()
    for name, hidden in ROWS:
        row = name if hidden == 64 else f"{name}, {hidden} units"
        curves[row] = {kind: curve(name, hidden, kind == "cubic") for kind in ("gaussian", "cubic")}
        summed = {kind: summary(values) for kind, values in curves[row].items()}
        print(
            row,
            {k: {i: v["mean"] for i, v in rows.items()} for k, rows in summed.items()},
            file=sys.stderr,
        )
        found[row] = summed
    found["minimised"] = {name: minimised(name) for name in MINIMISED}
    found["minutes"] = round((time.monotonic() - began) / 60, 1)
    print(found["minimised"], file=sys.stderr)
    picture(curves, HERE.parent / "docs" / "images" / "mutual_information.svg")
    (HERE / "mutual_information.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
