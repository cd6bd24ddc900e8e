"""Claims that need no training: gradients, partition functions, bounds and limits, in seconds.

    python studies/exact_claims.py      # under two minutes of one thread; writes exact_claims.json

Each function returns the numbers of one claim of docs/claims.md; all are deterministic given SEEDS.
"""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import commit
from scipy import stats
from torch import Tensor

from tellapart.functional import losses

FILE = Path(__file__).with_suffix(".json")
SEEDS = 5


def _unit(rows: Tensor) -> Tensor:
    return torch.nn.functional.normalize(rows, dim=1)


def mean_std(values: list[float], digits: int = 3) -> list[float]:
    """Mean and standard deviation over seeds."""
    return [round(float(np.mean(values)), digits), round(float(np.std(values, ddof=1)), digits)]


def nce_gradient() -> dict[str, Any]:
    """Claim 2: the NCE gradient approaches the maximum-likelihood gradient as O(1 / k).

    A vocabulary of 200 words with free scores; data words from a Zipf law; the expected NCE
    gradient of the scores (over data and noise, in closed form) against that of the softmax, for k
    noise samples a word. With normalised scores (Z = 1) the expected NCE gradient of word w is
    (p_data(w) - p_model(w)) k q(w) / (p_model(w) + k q(w)).
    """
    found: dict[str, Any] = {}
    counts = 1 / np.arange(1, 201)
    data = counts / counts.sum()
    ks = [2**i for i in range(11)]
    for noise, q in (("uniform", np.full(200, 1 / 200)), ("unigram", data)):
        errors = []
        for seed in range(SEEDS):
            scores = np.random.default_rng(seed).normal(0, 1, 200)
            model = np.exp(scores) / np.exp(scores).sum()
            exact = data - model
            errors.append(
                [
                    float(
                        np.linalg.norm(exact * k * q / (model + k * q) - exact)
                        / np.linalg.norm(exact)
                    )
                    for k in ks
                ]
            )
        tail = np.log(np.array(errors)[:, 5:])
        slopes = [stats.linregress(np.log(ks[5:]), row).slope for row in tail]
        found[noise] = {
            "k": ks,
            "relative error": np.mean(errors, 0).round(5).tolist(),
            "slope, k from 32": mean_std(slopes),
        }
    return found


def partition_function() -> dict[str, Any]:
    """Claim 3: few noise samples estimate Z; and Z / S of a random bank is exp(1 / (2 D tau^2))."""
    size, dim, tau = 20_000, 128, 0.07
    ms, batches = (1, 10, 64, 512, 4096), (1, 10)
    errors: dict[str, list[float]] = {}
    ratios = []
    for seed in range(SEEDS):
        g = torch.Generator().manual_seed(seed)
        bank = _unit(torch.randn(size, dim, generator=g, dtype=torch.float64))
        queries = _unit(torch.randn(10 * 128, dim, generator=g, dtype=torch.float64))
        exact = (queries @ bank.T / tau).exp().mean(1).mean()
        ratios.append(float(exact) / math.exp(1 / (2 * dim * tau**2)))
        for m in ms:
            for count in batches:
                rows = torch.randint(size, (count * 128, m), generator=g)
                estimate = torch.stack(
                    [(bank[rows[i]] @ queries[i] / tau).exp().mean() for i in range(count * 128)]
                ).mean()
                errors.setdefault(f"m = {m}, {count} batches of 128", []).append(
                    abs(float(estimate / exact) - 1)
                )
    return {
        "relative error of Z, mean over seeds": {
            name: round(float(np.mean(values)), 4) for name, values in errors.items()
        },
        "Z / S over exp(1 / (2 D tau^2))": mean_std(ratios, 4),
    }


def own_feature_as_weight() -> dict[str, float]:
    """Claim 6: with v_i replaced by f_i in eq. 2, the positive is constant and has no gradient."""
    torch.manual_seed(0)
    raw = torch.randn(64, 32, dtype=torch.float64, requires_grad=True)
    unit = _unit(raw)
    positive = (unit * unit).sum() / 0.1
    (gradient,) = torch.autograd.grad(positive, raw, retain_graph=True)
    whole = -torch.log_softmax(unit @ unit.T / 0.1, 1).diagonal().mean()
    (all_of_it,) = torch.autograd.grad(whole, raw)
    return {
        "gradient norm of the positive term": float(gradient.norm()),
        "gradient norm of the whole loss": float(all_of_it.norm()),
    }


def spring() -> dict[str, Any]:
    """Claim 9: the force is linear in the distance of a similar pair, zero beyond the margin."""
    points: dict[str, list[float]] = {"distance": [], "similar": [], "dissimilar": []}
    for distance in np.linspace(0.1, 1.5, 8):
        points["distance"].append(round(float(distance), 2))
        for name, same in (("similar", True), ("dissimilar", False)):
            a = torch.zeros(1, 2, dtype=torch.float64)
            b = torch.tensor([[float(distance), 0.0]], dtype=torch.float64, requires_grad=True)
            loss = losses.margin_contrastive(a, b, torch.tensor([same]), margin=1.0)
            (force,) = torch.autograd.grad(loss, b)
            points[name].append(round(-float(force[0, 0]), 6))
    return points


def density_ratio() -> dict[str, Any]:
    """Claim 11: with the optimal critic the InfoNCE estimate rises with N, below ln N and I.

    x and c are correlated Gaussians of d = 20 dimensions with I = 6 nats; the critic is the exact
    log density ratio. Also: how often the step log(1 + r (N - 1)) >= log(r N), r = p(x) / p(x | c),
    of the survey's eq. 25 is false (it needs r <= 1).
    """
    dim, information = 20, 6.0
    rho = math.sqrt(1 - math.exp(-2 * information / dim))
    sizes = [16, 64, 256, 1024, 4096]
    found: dict[str, Any] = {
        "I": information,
        "N": sizes,
        "estimate": [],
        "ln N": [round(math.log(n), 3) for n in sizes],
    }
    broken = []
    for n in sizes:
        estimates = []
        for seed in range(SEEDS):
            g = torch.Generator().manual_seed(seed)
            for _ in range(max(1, 4096 // n)):
                c = torch.randn(n, dim, generator=g, dtype=torch.float64)
                x = rho * c + math.sqrt(1 - rho**2) * torch.randn(
                    n, dim, generator=g, dtype=torch.float64
                )
                # log p(x | c) - log p(x), every x against every c
                scores = (
                    -((x**2).sum(1)[None] - 2 * rho * c @ x.T + rho**2 * (c**2).sum(1)[:, None])
                    / (2 * (1 - rho**2))
                    + (x**2).sum(1)[None] / 2
                    - dim / 2 * math.log(1 - rho**2)
                )
                estimates.append(
                    math.log(n) + float(torch.log_softmax(scores, 1).diagonal().mean())
                )
                broken.append(float((-scores.diagonal() > 0).double().mean()))
        found["estimate"].append(round(float(np.mean(estimates)), 3))
    found["share of pairs with r > 1, where the step of eq. 25 is false"] = round(
        float(np.mean(broken)), 4
    )
    return found


def supcon_forms() -> dict[str, Any]:
    """Claim 17: L_in <= L_out, and the two are equal for one positive."""
    gaps, ratio = [], []
    for seed in range(SEEDS):
        torch.manual_seed(seed)
        z = _unit(torch.randn(24, 16, dtype=torch.float64)).requires_grad_()
        labels = torch.arange(24) // 6
        out = losses.sup_con(z, labels, reduction="out")
        inside = losses.sup_con(z, labels, reduction="in")
        gaps.append((out - inside).item())
        grads = [torch.autograd.grad(v, z, retain_graph=True)[0].norm() for v in (out, inside)]
        ratio.append(float(grads[0] / grads[1]))
    z = _unit(torch.randn(12, 16, dtype=torch.float64))
    pairs = torch.arange(12) // 2
    equal = losses.sup_con(z, pairs, reduction="out") - losses.sup_con(z, pairs, reduction="in")
    return {
        "L_out - L_in, five positives, mean over seeds": round(float(np.mean(gaps)), 4),
        "smallest L_out - L_in": round(min(gaps), 4),
        "L_out - L_in, one positive": abs(equal.item()),
        "norm of the gradient, L_out over L_in": mean_std(ratio),
    }


CLAIMS = {
    "nce_gradient": nce_gradient,
    "partition_function": partition_function,
    "own_feature_as_weight": own_feature_as_weight,
    "spring": spring,
    "density_ratio": density_ratio,
    "supcon_forms": supcon_forms,
}


def main() -> None:
    """Compute every claim and write the file."""
    began = time.process_time()
    torch.set_num_threads(1)
    found: dict[str, Any] = {name: function() for name, function in CLAIMS.items()}
    about = {
        "command": "python studies/exact_claims.py",
        "commit": commit(),
        "seeds": SEEDS,
        "cpu_seconds": round(time.process_time() - began, 1),
    }
    FILE.write_text(json.dumps(about | found, indent=1) + "\n")


if __name__ == "__main__":
    main()
