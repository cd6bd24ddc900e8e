"""Mutual information in nats: closed forms, lower and upper bounds, and their limits.

A score matrix (N, N) holds f(x_i, y_j); its diagonal are the true pairs. For the upper bounds the
score is ln q(y_j | x_i) of a conditional model. `ESTIMATORS` states of each estimator whether it is
a bound and where it fails.

Shapes: N pairs, X and Y widths.

Sources: InfoNCE, van den Oord 2018 (arXiv 1807.03748); NWJ, Nguyen et al. 2010; Donsker-Varadhan as
MINE, Belghazi 2018 (arXiv 1801.04062); JS and the overview, Poole 2019 (arXiv 1905.06922); the
variational upper bound, Barber & Agakov 2003 and Alemi 2017; CLUB, Cheng 2020 (arXiv 2006.12013);
leave-one-out, Poole 2019, eq. 13.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import require, unknown
from .tiled import softplus

# closed forms -------------------------------------------------------------------------------------


def entropy(p: Tensor) -> Tensor:
    """-sum p ln p of a table of probabilities.

    Args:
        p: probabilities of any shape, >= 0, summing to 1.

    Returns:
        Scalar in nats, >= 0.

    Raises:
        ConfigError: not a table of probabilities.

    >>> entropy(torch.full((4,), 0.25))   # ln 4
    tensor(1.3863)
    """
    _check_table(p)
    value: Tensor = -torch.special.xlogy(p, p).sum()
    return value


def conditional_entropy(joint: Tensor) -> Tensor:
    """H(Y | X) = H(X, Y) - H(X).

    Args:
        joint: (X, Y) table of joint probabilities.

    Returns:
        Scalar in nats.
    """
    return entropy(joint) - entropy(joint.sum(1))


def discrete_information(joint: Tensor) -> Tensor:
    """I(X; Y) = H(X) + H(Y) - H(X, Y).

    Args:
        joint: (X, Y) table of joint probabilities.

    Returns:
        Scalar in nats, >= 0.

    >>> discrete_information(torch.eye(2) / 2)   # ln 2
    tensor(0.6931)
    >>> discrete_information(torch.full((2, 2), 0.25))
    tensor(0.)
    """
    return entropy(joint.sum(1)) + entropy(joint.sum(0)) - entropy(joint)


def gaussian_entropy(covariance: Tensor) -> Tensor:
    """1/2 ln det(2 pi e covariance) of a Gaussian.

    Args:
        covariance: (D, D), positive definite.

    Returns:
        Scalar in nats.

    Raises:
        ConfigError: not a square matrix, or not positive definite.

    >>> gaussian_entropy(torch.eye(1))   # ln(2 pi e) / 2
    tensor(1.4189)
    """
    d = len(covariance)
    require(
        covariance.shape == (d, d), f"a covariance (D, D) is needed, got {tuple(covariance.shape)}"
    )
    sign, logdet = torch.linalg.slogdet(covariance)
    require(bool(sign > 0), "the covariance is not positive definite")
    value: Tensor = 0.5 * (d * math.log(2 * math.pi * math.e) + logdet)
    return value


def gaussian_conditional_entropy(covariance: Tensor, x_width: int) -> Tensor:
    """H(Y | X) of a Gaussian.

    Args:
        covariance: (X + Y, X + Y), X first.
        x_width: number of values of X.

    Returns:
        Scalar in nats.
    """
    return gaussian_entropy(covariance) - gaussian_entropy(covariance[:x_width, :x_width])


def gaussian_information(covariance: Tensor, x_width: int) -> Tensor:
    """I(X; Y) of a Gaussian: -d/2 ln(1 - rho^2) for d independent pairs of correlation rho.

    Args:
        covariance: (X + Y, X + Y), X first.
        x_width: number of values of X.

    Returns:
        Scalar in nats, >= 0.

    >>> gaussian_information(torch.tensor([[1.0, 0.6], [0.6, 1.0]]), 1)   # -ln(0.64) / 2
    tensor(0.2231)
    """
    x, y = covariance[:x_width, :x_width], covariance[x_width:, x_width:]
    return gaussian_entropy(x) + gaussian_entropy(y) - gaussian_entropy(covariance)


def correlation_of(information: float, width: int) -> float:
    """The correlation of each of several independent Gaussian pairs of a given total information.

    Args:
        information: nats, >= 0.
        width: number of pairs.

    Returns:
        The correlation, in [0, 1).

    Raises:
        ConfigError: information below 0.

    >>> round(correlation_of(6.0, 20), 4)
    0.6717
    """
    require(information >= 0, f"mutual information is not below 0, got {information}")
    return math.sqrt(1 - math.exp(-2 * information / width))


def exact_club(correlation: float, width: int) -> float:
    """The value of CLUB with the true conditional: d rho^2 / (1 - rho^2), which is not I.

    Args:
        correlation: rho of each pair.
        width: d, number of independent pairs.

    Returns:
        Nats.

    >>> [round(exact_club(correlation_of(i, 20), 20), 2) for i in (2, 4, 6, 8, 10)]
    [4.43, 9.84, 16.44, 24.51, 34.37]
    """
    return width * correlation**2 / (1 - correlation**2)


# lower bounds, of scores (N, N) -------------------------------------------------------------------


def info_nce(scores: Tensor) -> Tensor:
    """ln N + mean_i [s_ii - ln sum_j e^s_ij], a lower bound of I that never exceeds ln N.

    Args:
        scores: (N, N) of f(x_i, y_j), N >= 2.

    Returns:
        Scalar in nats.

    Source:
        van den Oord et al. 2018, eq. 4; Poole et al. 2019, eq. 10.

    >>> info_nce(100 * torch.eye(8))   # ln 8
    tensor(2.0794)
    """
    n = _check_scores(scores)
    return math.log(n) + (scores.diagonal() - scores.logsumexp(1)).mean()


def nwj(scores: Tensor) -> Tensor:
    """E_joint[f] - E_product[e^(f - 1)], a lower bound of I whose variance grows like e^I.

    Args:
        scores: (N, N) of f(x_i, y_j), N >= 2.

    Returns:
        Scalar in nats.

    Source:
        Nguyen et al. 2010; Poole et al. 2019, eq. 6.
    """
    _check_scores(scores)
    return scores.diagonal().mean() - _log_mean_exp_apart(scores - 1).exp()


def donsker_varadhan(scores: Tensor) -> Tensor:
    """E_joint[f] - ln E_product[e^f]: a lower bound of I for exact expectations.

    Over small batches it lies above that bound on average, by the concavity of the logarithm.

    Args:
        scores: (N, N) of f(x_i, y_j), N >= 2.

    Returns:
        Scalar in nats.

    Source:
        Belghazi et al. 2018, eq. 10.
    """
    _check_scores(scores)
    return scores.diagonal().mean() - _log_mean_exp_apart(scores)


def mine_loss(scores: Tensor, running: Tensor) -> tuple[Tensor, Tensor]:
    """The loss of MINE, and the running mean of E_product[e^f] that unbiases its gradient.

    Args:
        scores: (N, N) of f(x_i, y_j), N >= 2.
        running: that mean over earlier batches, with a decay of 0.99; 0 before the first batch.

    Returns:
        The loss and the new running mean.

    Source:
        Belghazi et al. 2018, eq. 12.
    """
    product = _log_mean_exp_apart(scores).exp()
    now = product.detach()
    running = torch.where(running > 0, 0.99 * running + 0.01 * now, now)
    return product / running - scores.diagonal().mean(), running


def jensen_shannon(scores: Tensor) -> Tensor:
    """NWJ at f + 1, for scores trained by `jensen_shannon_loss`: a lower bound of I.

    Its variance is not below that of NWJ: 21 against 1 at I = 6 in studies/mutual_information.json.

    Args:
        scores: (N, N) of f(x_i, y_j), N >= 2.

    Returns:
        Scalar in nats.

    Source:
        Poole et al. 2019, sec. 2.
    """
    return nwj(scores + 1)


def jensen_shannon_loss(scores: Tensor) -> Tensor:
    """E_joint[softplus(-f)] + E_product[softplus(f)]: classify pairs by a logistic loss.

    Args:
        scores: (N, N) of f(x_i, y_j), N >= 2.

    Returns:
        Scalar; 2 ln 2 for scores of 0.
    """
    n = _check_scores(scores)
    apart = softplus(scores).sum() - softplus(scores.diagonal()).sum()
    return softplus(-scores.diagonal()).mean() + apart / (n * (n - 1))


# upper bounds, of log q(y_j | x_i) (N, N) ---------------------------------------------------------


def variational_upper(log_q: Tensor, log_r: Tensor) -> Tensor:
    """E_joint[ln q(y | x) - ln r(y)]: an upper bound if q is the true conditional, for any r.

    Args:
        log_q: (N,) ln q(y_i | x_i).
        log_r: (N,) ln r(y_i) of a model of the marginal, for example a standard normal.

    Returns:
        Scalar in nats.

    Raises:
        ConfigError: shapes that do not match.

    Source:
        Barber & Agakov 2003; Alemi et al. 2017.
    """
    require(
        log_q.ndim == 1 and log_q.shape == log_r.shape,
        f"two (N,) are needed, got {tuple(log_q.shape)} and {tuple(log_r.shape)}",
    )
    return (log_q - log_r).mean()


def club(log_q: Tensor) -> Tensor:
    """E_joint[ln q] - E_product[ln q] over all N^2 pairs: an upper bound if q is near the truth.

    Args:
        log_q: (N, N) ln q(y_j | x_i), N >= 2.

    Returns:
        Scalar in nats.

    Source:
        Cheng et al. 2020, eq. 9.
    """
    _check_scores(log_q)
    return log_q.diagonal().mean() - log_q.mean()


def club_sampled(log_q: Tensor, generator: torch.Generator) -> Tensor:
    """CLUB with one drawn y for each x: the same expectation, N values of q, a larger variance.

    Args:
        log_q: (N, N) ln q(y_j | x_i), N >= 2.
        generator: draws the permutation.

    Returns:
        Scalar in nats.
    """
    n = _check_scores(log_q)
    drawn = torch.randperm(n, generator=generator, device=log_q.device)
    return (log_q.diagonal() - log_q[torch.arange(n, device=log_q.device), drawn]).mean()


def leave_one_out(log_q: Tensor) -> Tensor:
    """mean_i [ln q(y_i | x_i) - ln 1/(N - 1) sum_{j != i} q(y_i | x_j)]: an upper bound.

    A bound if q is the true conditional.

    In a widely used implementation a mask of shape (N, N, 1) makes it equal to CLUB; here the
    own x is left out.

    Args:
        log_q: (N, N) ln q(y_j | x_i), N >= 2.

    Returns:
        Scalar in nats.

    Source:
        Poole et al. 2019, eq. 13.
    """
    n = _check_scores(log_q)
    own = torch.eye(n, dtype=torch.bool, device=log_q.device)
    others = log_q.masked_fill(own, -torch.inf).logsumexp(0)
    return (log_q.diagonal() - others + math.log(n - 1)).mean()


# estimators of samples ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Kind:
    """The claim of an estimator, and where it fails.

    Attributes:
        bound: "lower bound", "upper bound" or "estimate".
        learns: "critic", f(x, y), or "conditional", q(y | x).
        fails: its known limit.
    """

    bound: str
    learns: str
    fails: str


ESTIMATORS: dict[str, Kind] = {
    "infonce": Kind("lower bound", "critic", "saturates at ln N, N the batch"),
    "nwj": Kind("lower bound", "critic", "variance grows like e^I"),
    "mine": Kind(
        "estimate", "critic", "above I on average over small batches; variance grows like e^I"
    ),
    "js": Kind("lower bound", "critic", "variance grows like e^I"),
    "vub": Kind(
        "upper bound",
        "conditional",
        "a bound only where q is the true conditional; r standard normal",
    ),
    "vub, learned marginal": Kind(
        "upper bound", "conditional", "a bound only where q is the true conditional"
    ),
    "club": Kind(
        "upper bound",
        "conditional",
        "a bound only where q is near the truth; far above I when I is large",
    ),
    "club, sampled": Kind("upper bound", "conditional", "as CLUB, and noisier"),
    "leave-one-out": Kind(
        "upper bound", "conditional", "a bound only where q is the true conditional"
    ),
}


class Critic(nn.Module):
    """f(x, y): two layers on the pair, for all N^2 pairs of a batch."""

    def __init__(self, x_width: int, y_width: int, hidden: int) -> None:
        super().__init__()
        self.x, self.y = nn.Linear(x_width, hidden), nn.Linear(y_width, hidden, bias=False)
        self.out = nn.Linear(hidden, 1)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Score all pairs; the first layer of a pair is a sum of two, so it runs 2 N times.

        Args:
            x: (N, X).
            y: (N, Y).

        Returns:
            (N, N): rows x_i, columns y_j.
        """
        value: Tensor = self.out(F.relu(self.x(x)[:, None] + self.y(y)[None]))[:, :, 0]
        return value


class GaussianConditional(nn.Module):
    """q(y | x): a Gaussian whose mean and log-variance are each a network of one hidden layer."""

    def __init__(self, x_width: int, y_width: int, hidden: int) -> None:
        super().__init__()
        self.mean = nn.Sequential(nn.Linear(x_width, hidden), nn.ReLU(), nn.Linear(hidden, y_width))
        self.log_variance = nn.Sequential(
            nn.Linear(x_width, hidden), nn.ReLU(), nn.Linear(hidden, y_width)
        )

    def pairs(self, x: Tensor, y: Tensor) -> Tensor:
        """(N,) ln q(y_i | x_i)."""
        return _gaussian(y, self.mean(x), self.log_variance(x))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """(N, N) ln q(y_j | x_i)."""
        return _gaussian(y[None], self.mean(x)[:, None], self.log_variance(x)[:, None])


class Estimator(nn.Module):
    """An estimator by name, with the small network that it trains.

    Args:
        name: a key of `ESTIMATORS`.
        x_width: width of x.
        y_width: width of y.
        hidden: units of the network.
        seed: of its weights and draws.

    Raises:
        ConfigError: an unknown name, with the nearest one.
    """

    running: Tensor

    def __init__(
        self, name: str, x_width: int, y_width: int, *, hidden: int = 64, seed: int = 0
    ) -> None:
        super().__init__()
        if name not in ESTIMATORS:
            raise unknown("estimator", name, ESTIMATORS)
        self.name, self.kind, self.seed, self.calls = name, ESTIMATORS[name], seed, 0
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            make: Callable[..., nn.Module] = (
                Critic if self.kind.learns == "critic" else GaussianConditional
            )
            self.network: Any = make(x_width, y_width, hidden)
        self.marginal_mean = nn.Parameter(
            torch.zeros(y_width), requires_grad=name.endswith("marginal")
        )
        self.marginal_log_variance = nn.Parameter(
            torch.zeros(y_width), requires_grad=name.endswith("marginal")
        )
        self.register_buffer("running", torch.zeros(()))

    def learning_loss(self, x: Tensor, y: Tensor) -> Tensor:
        """The loss of the network: minus the bound, or minus the likelihood.

        Args:
            x: (N, X).
            y: (N, Y).

        Returns:
            Scalar.
        """
        if self.kind.learns == "conditional":
            likelihood: Tensor = self.network.pairs(x, y).mean()
            return (
                -likelihood - self._marginal(y).mean()
                if self.name.endswith("marginal")
                else -likelihood
            )
        scores: Tensor = self.network(x, y)
        if self.name == "mine":
            loss, running = mine_loss(scores, self.running)
            self.running.copy_(running)
            return loss
        if self.name == "js":
            return jensen_shannon_loss(scores)
        return -(info_nce if self.name == "infonce" else nwj)(scores)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """The estimate on a batch.

        Args:
            x: (N, X).
            y: (N, Y).

        Returns:
            Scalar in nats; differentiable in x and y, so that it can be maximised or minimised.
        """
        if self.name.startswith("vub"):
            return variational_upper(self.network.pairs(x, y), self._marginal(y))
        scores: Tensor = self.network(x, y)
        if self.name == "club, sampled":
            self.calls += 1
            generator = torch.Generator(scores.device).manual_seed(
                1_000_003 * self.seed + self.calls
            )
            return club_sampled(scores, generator)
        rules: dict[str, Callable[[Tensor], Tensor]] = {
            "infonce": info_nce,
            "nwj": nwj,
            "mine": donsker_varadhan,
            "js": jensen_shannon,
            "club": club,
            "leave-one-out": leave_one_out,
        }
        return rules[self.name](scores)

    def _marginal(self, y: Tensor) -> Tensor:
        """(N,) ln r(y): a standard normal, or one whose mean and variance were learned."""
        return _gaussian(y, self.marginal_mean, self.marginal_log_variance)


def measure(
    name: str,
    x: Tensor,
    y: Tensor,
    *,
    steps: int = 2000,
    batch: int = 64,
    lr: float = 5e-3,
    hidden: int = 64,
    seed: int = 0,
) -> float:
    """Estimate I(X; Y) from samples: trained on four fifths of them, measured on the rest.

    Args:
        name: a key of `ESTIMATORS`.
        x: (S, X), S >= 10.
        y: (S, Y), row by row of one pair.
        steps: of Adam.
        batch: pairs per step.
        lr: learning rate of Adam.
        hidden: units of the network.
        seed: of the split, the weights and the draws.

    Returns:
        Nats.

    Raises:
        ConfigError: shapes that do not match, or fewer than ten pairs.
    """
    require(
        x.ndim == y.ndim == 2 and len(x) == len(y) >= 10,
        "ten pairs (S, X), (S, Y) or more are needed",
    )
    x, y = x.float(), y.float()
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(x), generator=generator)
    held, rest = order[: len(x) // 5], order[len(x) // 5 :]
    estimator = Estimator(name, x.shape[1], y.shape[1], hidden=hidden, seed=seed)
    optimizer = torch.optim.Adam([p for p in estimator.parameters() if p.requires_grad], lr)
    for _ in range(steps):
        rows = rest[torch.randint(len(rest), (min(batch, len(rest)),), generator=generator)]
        optimizer.zero_grad(set_to_none=True)
        estimator.learning_loss(x[rows], y[rows]).backward()
        optimizer.step()
    with torch.no_grad():
        parts = [part for part in held.split(batch) if len(part) > 1]
        return sum(float(estimator(x[p], y[p])) * len(p) for p in parts) / sum(map(len, parts))


def _gaussian(y: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """ln of a diagonal Gaussian's density, over the last axis."""
    squared = (y - mean).square() * torch.exp(-log_variance)
    return -0.5 * (squared + log_variance + math.log(2 * math.pi)).sum(-1)


def _log_mean_exp_apart(scores: Tensor) -> Tensor:
    """ln of the mean of e^s over the pairs i != j."""
    n = len(scores)
    own = torch.eye(n, dtype=torch.bool, device=scores.device)
    return scores.masked_fill(own, -torch.inf).flatten().logsumexp(0) - math.log(n * (n - 1))


def _check_scores(scores: Tensor) -> int:
    n = len(scores)
    require(
        scores.shape == (n, n) and n > 1,
        f"scores (N, N) of 2 pairs or more are needed, got {tuple(scores.shape)}",
    )
    return n


def _check_table(p: Tensor) -> None:
    right = bool((p >= 0).all()) and abs(float(p.sum()) - 1) < 1e-4
    require(right, "a table of probabilities is needed: none below 0, together 1")
