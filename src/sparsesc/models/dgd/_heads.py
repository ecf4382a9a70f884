"""From the last hidden layer to the distribution of one modality's features."""

from __future__ import annotations

import math

import torch
from torch import nn

_INITIAL_DISPERSION = 2.0


def _pick(values: torch.Tensor, columns: torch.Tensor | None) -> torch.Tensor:
    return values if columns is None else values[columns]


class Head(nn.Module):
    """One linear layer, and the distribution that its output parametrizes.

    `columns` selects features if cells lack the others. Log probabilities are summed over features.
    """

    def __init__(self, n_hidden: int, n_features: int) -> None:
        super().__init__()
        self.linear = nn.Linear(n_hidden, n_features)

    def output(self, hidden: torch.Tensor, columns: torch.Tensor | None) -> torch.Tensor:
        """Cells x features, on the real line."""
        return nn.functional.linear(hidden, _pick(self.linear.weight, columns), _pick(self.linear.bias, columns))

    def log_prob(self, hidden: torch.Tensor, x: torch.Tensor, columns: torch.Tensor | None = None) -> torch.Tensor:
        """Log probability of each cell's values."""
        raise NotImplementedError

    def expected(self, hidden: torch.Tensor) -> torch.Tensor:
        """Expected values; of counts, their shares."""
        raise NotImplementedError

    def start_at(self, mean: torch.Tensor) -> None:
        """Set the offsets so that a cell at the origin has about the mean values given."""
        with torch.no_grad():
            self.linear.bias.copy_(self.offsets(mean))

    def offsets(self, mean: torch.Tensor) -> torch.Tensor:
        """Outputs of the linear layer for the mean cell."""
        raise NotImplementedError


class NegativeBinomialHead(Head):
    """Counts: mean = sum of the cell's counts x share; shares sum to one; one dispersion per feature."""

    def __init__(self, n_hidden: int, n_features: int) -> None:
        super().__init__(n_hidden, n_features)
        self.log_dispersion = nn.Parameter(torch.full((n_features,), math.log(_INITIAL_DISPERSION)))

    def log_prob(self, hidden: torch.Tensor, x: torch.Tensor, columns: torch.Tensor | None = None) -> torch.Tensor:
        """Over all features; terms that only counts above zero have are computed for these alone."""
        log_r = _pick(self.log_dispersion, columns)
        log_mean = torch.log_softmax(self.output(hidden, columns), dim=-1) + x.sum(1, keepdim=True).log()
        zeros = -(log_r.exp() * nn.functional.softplus(log_mean - log_r)).sum(-1)  # log p(0) = -r log(1 + m / r)
        cell, feature = x.nonzero(as_tuple=True)
        k, s, m = x[cell, feature], log_r[feature], log_mean[cell, feature]
        r = s.exp()
        more = torch.lgamma(k + r) - torch.lgamma(r) - torch.lgamma(k + 1) + k * (m - torch.logaddexp(s, m))
        return zeros.index_add(0, cell, more)

    def expected(self, hidden: torch.Tensor) -> torch.Tensor:
        """Shares of the features, which sum to one."""
        return torch.softmax(self.output(hidden, None), dim=-1)

    def offsets(self, mean: torch.Tensor) -> torch.Tensor:
        """Logarithms of the shares, centered."""
        share = mean.clamp(min=mean[mean > 0].min() / 2 if (mean > 0).any() else 1.0)
        return share.log() - share.log().mean()


class GaussianHead(Head):
    """Real values: one standard deviation per feature."""

    def __init__(self, n_hidden: int, n_features: int) -> None:
        super().__init__(n_hidden, n_features)
        self.log_sd = nn.Parameter(torch.zeros(n_features))

    def log_prob(self, hidden: torch.Tensor, x: torch.Tensor, columns: torch.Tensor | None = None) -> torch.Tensor:
        """Normal density."""
        log_sd = _pick(self.log_sd, columns)
        gap = (x - self.output(hidden, columns)) * (-log_sd).exp()
        return -(0.5 * gap.square() + log_sd + 0.5 * math.log(2 * math.pi)).sum(-1)

    def expected(self, hidden: torch.Tensor) -> torch.Tensor:
        """Means."""
        return self.output(hidden, None)

    def offsets(self, mean: torch.Tensor) -> torch.Tensor:
        """The means."""
        return mean


class BernoulliHead(Head):
    """Open or closed: anything above zero is open."""

    def log_prob(self, hidden: torch.Tensor, x: torch.Tensor, columns: torch.Tensor | None = None) -> torch.Tensor:
        """Log p of open features, log (1 - p) of the others."""
        logit = self.output(hidden, columns)
        return torch.where(x > 0, logit, 0).sum(-1) - nn.functional.softplus(logit).sum(-1)

    def expected(self, hidden: torch.Tensor) -> torch.Tensor:
        """Probability of being open."""
        return torch.sigmoid(self.output(hidden, None))

    def offsets(self, mean: torch.Tensor) -> torch.Tensor:
        """Logits of `mean`, the share of cells in which a feature is open."""
        return torch.logit(mean.clamp(1e-4, 1 - 1e-4))


HEADS: dict[str, type[Head]] = {"nb": NegativeBinomialHead, "gaussian": GaussianHead, "bernoulli": BernoulliHead}
