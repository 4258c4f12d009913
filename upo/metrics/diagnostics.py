"""The four diagnostics of a propensity over D as metrics; definitions in the functional module.

All take an optional ``weight``, ``[N]`` or ``[R, N]``: the number of pairs of D that a row stands
for in a stratified sample over D (1 by default). Values are normalised by the sum of the weights.
Without any row, or if all weights are 0, they are NaN.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from upo.functional.binning import bin_sums, bins_from_edges, equal_mass_edges, equal_width_bins
from upo.functional.diagnostics import bmse_sums, bmse_terms, dr_bias_terms, dr_variance_terms
from upo.metrics.base import ReplicaMetric
from upo.metrics.checks import BINARY, DIVISOR, FINITE, PROBABILITY, WEIGHT, check

Binning = Literal["equal_width", "equal_mass"]


class Reliability(NamedTuple):
    """A reliability diagram's points, each ``[R, M]``; NaN in empty bins."""

    p_hat: Tensor  # mean propensity in the bin
    observed: Tensor  # share observed in the bin
    weight: Tensor  # number of pairs in the bin


class ExpectedCalibrationError(ReplicaMetric):
    r"""Expected calibration error of propensities.

    .. math:: \sum_m |B_m| / |D| \cdot |mean_{B_m} o - mean_{B_m} \hat p|

    Bins are right-closed. Equal-width bins cut (0, 1] at m/M; equal-mass bins cut at the quantiles
    of p_hat, either ``edges`` fixed beforehand (for example by
    :func:`upo.functional.binning.equal_mass_edges` on the training pairs) or, without ``edges``,
    the quantiles of all rows seen, which are then kept until ``compute``.

    Args:
        num_bins: M.
        binning: ``"equal_width"`` or ``"equal_mass"``.
        edges: ``[M-1]`` or ``[R, M-1]`` ascending inner cut points, for equal-mass bins only.
        **kwargs: ``replicas`` and the arguments of ``torchmetrics.Metric``.

    Raises:
        ValueError: If an argument is out of range.
    """

    higher_is_better = False
    plot_lower_bound = 0.0
    weight: Tensor
    p_hat: Tensor
    observed: Tensor
    edges: Tensor | None

    def __init__(
        self,
        num_bins: int = 10,
        binning: Binning = "equal_width",
        edges: Tensor | Sequence[float] | None = None,
        **kwargs: Any,
    ) -> None:
        if num_bins < 1:
            raise ValueError(f"num_bins must be at least 1, got {num_bins}.")
        if binning not in get_args(Binning):
            raise ValueError(f"binning must be one of {get_args(Binning)}, got {binning!r}.")
        if edges is not None:
            edges = torch.as_tensor(edges, dtype=torch.float64)
            if binning != "equal_mass":
                raise ValueError("edges are for binning='equal_mass'; equal-width bins have none.")
            if edges.ndim not in (1, 2) or edges.shape[-1] != num_bins - 1:
                raise ValueError(
                    f"edges of {num_bins} bins need the shape [{num_bins - 1}] or "
                    f"[R, {num_bins - 1}], got {tuple(edges.shape)}."
                )
            check(type(self).__name__, {"edges": (edges, FINITE)})
            if bool((edges.diff(dim=-1) < 0).any()):
                raise ValueError("edges must ascend along the last axis.")
            if edges.ndim == 2:
                if kwargs.get("replicas") not in (None, len(edges)):
                    raise ValueError(
                        f"edges are for {len(edges)} replicas, not for {kwargs['replicas']}."
                    )
                kwargs["replicas"] = len(edges)
        super().__init__(**kwargs)
        self.num_bins = num_bins
        self.binning = binning
        self.keeps_rows = binning == "equal_mass" and edges is None
        self.register_buffer("edges", edges, persistent=False)
        self._reliability: Reliability | None = None
        if self.keeps_rows:
            self.add_rows("all_p_hat")
            self.add_rows("all_observed", dtype=torch.int8)
            self.add_rows("all_weight")
        else:
            self.add_arguments(binning, edges)
            self.add_sum("weight", num_bins)
            self.add_sum("p_hat", num_bins)
            self.add_sum("observed", num_bins)

    def update(self, p_hat: Tensor, observed: Tensor, weight: Tensor | None = None) -> None:
        """Add rows: propensities in [0, 1], observed 0 or 1, weights at least 0."""
        p, o, w = self.read(
            p_hat=(p_hat, PROBABILITY),
            observed=(observed, BINARY),
            weight=(weight, WEIGHT),
        )
        if self.keeps_rows:
            self.keep("all_p_hat", p)
            self.keep("all_observed", o)
            self.keep("all_weight", w)
        else:
            weights, p_sums, o_sums = self._sums(p, o, w, self._index(p))
            self.weight = self.weight + weights
            self.p_hat = self.p_hat + p_sums
            self.observed = self.observed + o_sums

    def compute(self) -> Tensor:
        """The error over the bins, weighted by their pairs; 0 is perfect."""
        if self.keeps_rows:
            p, o, w = (self.rows(f"all_{name}") for name in ("p_hat", "observed", "weight"))
            if p.shape[-1]:
                index = bins_from_edges(p, equal_mass_edges(p, self.num_bins, w))
            else:
                index = torch.empty_like(p, dtype=torch.int64)
            weight, p_hat, observed = self._sums(p, o, w, index)
        else:
            weight, p_hat, observed = self.weight, self.p_hat, self.observed
        self._reliability = Reliability(p_hat / weight, observed / weight, weight.clone())
        return self.per_replica((observed - p_hat).abs().sum(-1) / weight.sum(-1))

    def reliability(self) -> Reliability:
        """Mean propensity, share observed and weight of each bin, over all ranks.

        It computes (and synchronises) like ``compute``, whose result it reuses if there is one.
        """
        self.compute()
        assert self._reliability is not None  # set by compute
        return self._reliability

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        """Draw a reliability diagram, a line per replica; returns figure and axes.

        With ``val``, one or more earlier results, plot these values instead.
        """
        if val is not None:
            return self._plot(val, ax)
        import matplotlib.pyplot as plt  # here: importing it takes half a second

        figure, ax = plt.subplots() if ax is None else (ax.figure, ax)
        p_hat, observed, _ = (x.cpu() for x in self.reliability())
        errors = self.compute().reshape(-1).tolist()
        for r, error in enumerate(errors):
            seen = ~p_hat[r].isnan()
            name = "" if len(errors) == 1 else f"replica {r}, "
            ax.plot(p_hat[r, seen], observed[r, seen], "o-", ms=4, label=f"{name}ECE {error:.4f}")
        top = float(torch.stack([p_hat, observed]).nan_to_num(0.0).max()) or 1.0
        ax.plot([0, top], [0, top], "--", color="gray", lw=1, zorder=0)
        ax.set(
            xlabel="mean propensity in bin",
            ylabel="share observed in bin",
            title=f"Reliability, {self.num_bins} {self.binning.replace('_', '-')} bins",
        )
        if len(errors) <= 10:
            ax.legend()
        return figure, ax

    def _index(self, p: Tensor) -> Tensor:
        if self.edges is None:
            return equal_width_bins(p, self.num_bins)
        return bins_from_edges(p, self.edges)

    def _sums(self, p: Tensor, o: Tensor, w: Tensor, index: Tensor) -> tuple[Tensor, ...]:
        w = w.double()
        values = (w, w * p.double(), w * o.double())
        return tuple(bin_sums(x, index, self.num_bins) for x in values)


class BalancedMeanSquaredError(ReplicaMetric):
    r"""Balancing mean squared error: squared norm of the mean imbalance of the features.

    .. math:: \| 1/|D| \sum (o / \hat p - (1 - o) / (1 - \hat p)) \phi \|^2

    Args:
        **kwargs: ``replicas`` and the arguments of ``torchmetrics.Metric``.
    """

    higher_is_better = False
    plot_lower_bound = 0.0
    imbalance: Tensor
    weight: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_sum("imbalance", 1)  # [R, d] once d is known
        self.add_sum("weight")

    def update(
        self, p_hat: Tensor, observed: Tensor, features: Tensor, weight: Tensor | None = None
    ) -> None:
        """Add rows: p_hat in [0, 1], observed 0 or 1, features ``[N, d]`` or ``[R, N, d]``.

        Raises:
            ValueError: Also if a term is infinite: p_hat = 0 for an observed row, or 1 for another.
        """
        if features.ndim < 2 or features.shape[-1] == 0:
            raise ValueError(
                "BalancedMeanSquaredError needs features [N, d] or [R, N, d] with d at least 1, "
                f"got {tuple(features.shape)}; a single feature needs features.unsqueeze(-1)."
            )
        width, layout = features.shape[-1], self.layout
        p, o, w, _ = self.read(
            width=width,
            p_hat=(p_hat, PROBABILITY),
            observed=(observed, BINARY),
            weight=(weight, WEIGHT),
            features=(features.detach().abs().amax(-1), FINITE),  # NaN wins a maximum too
        )
        terms = bmse_terms(p, o)
        if not bool(terms.isfinite().all()):
            self.layout = layout
            raise ValueError(
                "BalancedMeanSquaredError divides by p_hat where observed and by 1 - p_hat "
                "elsewhere, and one of these is 0; clip p_hat on both sides."
            )
        w = w.double()
        self.imbalance = self.imbalance + bmse_sums(w * terms, features.detach())
        self.weight = self.weight + w.sum(-1)

    def compute(self) -> Tensor:
        """The squared norm of the mean imbalance; 0 is balanced."""
        return self.per_replica((self.imbalance / self.weight.unsqueeze(-1)).square().sum(-1))

    def _sum_shape(self, default: Tensor) -> tuple[int, ...]:
        replicas, width = self.layout.clamp(min=1).tolist()
        return (replicas,) if default.ndim == 1 else (replicas, width)


class DRBias(ReplicaMetric):
    r"""Absolute bias of the doubly robust estimate of the ideal loss.

    .. math:: 1/|D| |\sum (o - \hat p)(e - \hat e) / \hat p|

    Args:
        **kwargs: ``replicas`` and the arguments of ``torchmetrics.Metric``.
    """

    higher_is_better = False
    plot_lower_bound = 0.0
    bias: Tensor
    weight: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_sum("bias")
        self.add_sum("weight")

    def update(
        self,
        p_hat: Tensor,
        propensity_or_observed: Tensor,
        error: Tensor,
        imputed_error: Tensor,
        weight: Tensor | None = None,
    ) -> None:
        """Add rows: p_hat in (0, 1], o or its expectation p in [0, 1], the errors e and e_hat."""
        p_hat, o, e, e_hat, w = self.read(
            p_hat=(p_hat, DIVISOR),
            propensity_or_observed=(propensity_or_observed, PROBABILITY),
            error=(error, FINITE),
            imputed_error=(imputed_error, FINITE),
            weight=(weight, WEIGHT),
        )
        w = w.double()
        self.bias = self.bias + (w * dr_bias_terms(p_hat, o, e, e_hat)).sum(-1)
        self.weight = self.weight + w.sum(-1)

    def compute(self) -> Tensor:
        """The absolute bias; 0 is unbiased."""
        return self.per_replica(self.bias.abs() / self.weight)


class DRVariance(ReplicaMetric):
    r"""Variance of the doubly robust estimate over the observation indicators.

    .. math:: 1/|D|^2 \sum p (1 - p) / \hat p^2 (e - \hat e)^2

    Args:
        **kwargs: ``replicas`` and the arguments of ``torchmetrics.Metric``.
    """

    higher_is_better = False
    plot_lower_bound = 0.0
    variance: Tensor
    weight: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_sum("variance")
        self.add_sum("weight")

    def update(
        self,
        p_hat: Tensor,
        propensity: Tensor,
        error: Tensor,
        imputed_error: Tensor,
        weight: Tensor | None = None,
    ) -> None:
        """Add rows: p_hat in (0, 1], the true p in [0, 1], the errors e and e_hat."""
        p_hat, p, e, e_hat, w = self.read(
            p_hat=(p_hat, DIVISOR),
            propensity=(propensity, PROBABILITY),
            error=(error, FINITE),
            imputed_error=(imputed_error, FINITE),
            weight=(weight, WEIGHT),
        )
        w = w.double()
        self.variance = self.variance + (w * dr_variance_terms(p_hat, p, e, e_hat)).sum(-1)
        self.weight = self.weight + w.sum(-1)

    def compute(self) -> Tensor:
        """The variance over observations."""
        return self.per_replica(self.variance / self.weight.square())
