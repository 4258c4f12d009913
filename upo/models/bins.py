"""Bins of the propensity for the minimax game: equal width, equal mass, or adaptive equal mass."""

import torch
from torch import Tensor, nn

from upo.core.distributed import world_size
from upo.core.sampling import EpochStream, stream_key
from upo.errors import InputError
from upo.functional.binning import bins_from_edges, equal_mass_bins, equal_mass_edges
from upo.functional.propensity import bin_index
from upo.models.estimator import Estimator

RULES = ("equal_width", "equal_mass", "adaptive")


class Bins(nn.Module):
    """Assigns propensities to M bins; membership carries no gradient.

    Args:
        num_bins: M, at least 1.
        rule: ``equal_width`` (stated in the paper; with sparse data nearly all pairs share
            the first bin), ``equal_mass`` (quantiles of each batch, the development code), or
            ``adaptive`` (quantiles of a large sample of D, recomputed at the start of every epoch).
        sample: Pairs of D in that sample.

    Raises:
        InputError: If ``num_bins < 1`` or the rule is unknown.
    """

    replayable = True

    edges: Tensor

    def __init__(self, *, num_bins: int = 10, rule: str = "adaptive", sample: int = 65536) -> None:
        super().__init__()
        if num_bins < 1:
            raise InputError(f"estimator.bins.num_bins must be at least 1, got {num_bins}.")
        if rule not in RULES:
            raise InputError(f"estimator.bins.rule must be one of {list(RULES)}, got {rule!r}.")
        self.num_bins, self.rule, self.sample = num_bins, rule, sample
        self.register_buffer("edges", torch.zeros(0))

    def index(self, p_hat: Tensor) -> Tensor:  # [R, B] -> [R, B]
        """Bin of each propensity.

        Raises:
            InputError: If adaptive edges were never computed: all pairs would share one bin.
        """
        if self.rule == "adaptive":
            if self.num_bins > 1 and not self.edges.numel():
                raise InputError(
                    "estimator.bins.rule=adaptive needs a player that computes its edges each "
                    "epoch (one with reads_bins), and none plays here; use equal_mass."
                )
            return bins_from_edges(p_hat.detach(), self.edges)
        if self.rule == "equal_mass" and world_size() == 1 and p_hat.shape[-1]:
            return equal_mass_bins(p_hat, self.num_bins)  # the same from one sort
        return bin_index(p_hat, self.num_bins, self.rule)

    @torch.no_grad()
    def refresh(self, estimator: Estimator, epoch: int) -> None:
        """Recompute adaptive edges; every rank computes the same."""
        if self.rule != "adaptive":
            return
        space = estimator.space
        size = min(self.sample, space.n_pairs)
        domain = space.order()
        stream = EpochStream(domain, stream_key(space.seeds, "bins"))
        index = stream.rows(epoch, 1, 0, size, size)[:, 0]
        self.edges = equal_mass_edges(estimator.propensity(space.pairs(index, size)), self.num_bins)

    def _load_from_state_dict(
        self, state_dict: dict[str, Tensor], prefix: str, *rest: object
    ) -> None:
        self.edges = state_dict[prefix + "edges"].clone()  # its size changes at the first refresh
        super()._load_from_state_dict(state_dict, prefix, *rest)
