"""Imputed errors that are left out where their spread says that they may mislead (CDR)."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from upo.core.layers import ReplicaEmbedding, Sizes
from upo.core.sampling import splitmix64, stream_key, uniform
from upo.errors import InputError
from upo.functional.imputation import relative_spread
from upo.models.estimator import Derived, Estimator
from upo.pairs import Pairs

ALL = 1e9  # a tau that all meet


class Conservative(Derived):
    r"""Imputed errors :math:`\hat e`, or 0 where :math:`s>\tau\hat e`, in the place of logits.

    Mean :math:`\hat e` and standard deviation s are those of thinned imputation networks, each of
    which lacks other dimensions of its embeddings. An imputed error of 0 leaves an inverse
    propensity loss at that pair, so the doubly robust estimate stays unbiased under right
    propensities.

    Source: Song et al., "CDR: conservative doubly robust learning", CIKM 2023. A reconstruction:
    the paper filters by mean and variance; see ``upo.functional.imputation.relative_spread``. How
    far thinned networks disagree depends on how they are penalised, so :math:`\tau` is found, by
    ``upo.learners.trust.Trust``, as what a given share of D meets.

    Args:
        sizes: Seeds.
        source: Role of the imputation.
        share: Of D that keeps its imputed errors, in [0, 1]: 0 is IPS, 1 is DR.
        rate: Share of the dimensions that a draw lacks, in [0, 1).
        draws: Thinned networks, at least 1; the same at every step.
        purpose: Name of the network, part of the streams' keys.

    Raises:
        InputError: If a number is out of range.
    """

    replayable = True

    tau: Tensor

    def __init__(
        self,
        sizes: Sizes,
        *,
        source: str = "imputation",
        share: float = 0.7,
        rate: float = 0.5,
        draws: int = 6,
        purpose: str = "imputed",
    ) -> None:
        super().__init__(("prediction", source))
        for name, value, fine in (
            ("share", share, 0 <= share <= 1),
            ("rate", rate, 0 <= rate < 1),
            ("draws", draws, draws >= 1),
        ):
            if not fine:
                raise InputError(
                    f"{name} of the conservative imputation is out of range, got {value}; try "
                    "share=0.7, rate=0.5, draws=6."
                )
        self.share, self.rate, self.draws, self.purpose = share, rate, draws, purpose
        self.register_buffer("tau", torch.full((len(sizes.seeds), 1), ALL))

    def forward(self, estimator: Estimator, pairs: Pairs) -> Tensor:  # [R, B]
        """Imputed errors, with the graph to the prediction alone."""
        e_hat = self.drawn(estimator, pairs)
        mean = e_hat.mean(0)
        trusted = relative_spread(e_hat.detach()) <= self.tau
        return torch.where(trusted, mean, torch.zeros_like(mean))

    def drawn(self, estimator: Estimator, pairs: Pairs) -> Tensor:  # [T, R, B]
        """Imputed errors of each thinned network, with the graph to the prediction."""
        f_logit = estimator.logit("prediction", pairs)
        found = [estimator.form.imputed(f_logit, g) for g in self.thinned(estimator, pairs)]
        return torch.stack(found)

    @torch.no_grad()
    def thinned(self, estimator: Estimator, pairs: Pairs) -> list[Tensor]:  # T x [R, B]
        """Logits of each thinned imputation network; frozen."""
        network = estimator.network(self.sources[1])
        if not self.rate:
            return [estimator.logit(self.sources[1], pairs)] * self.draws
        found = []
        for draw in range(self.draws):
            key = stream_key(estimator.space.seeds, self.purpose, draw)
            with thinning(network, self.rate, key):
                found.append(network(pairs.users, pairs.items))
        return found


@contextmanager
def thinning(network: nn.Module, rate: float, key: Tensor) -> Iterator[None]:
    """Within the block, embeddings lack a random share of their dimensions; others weigh more.

    Args:
        network: Its tables of width above 1 are thinned, each on its own.
        rate: Share of the dimensions, in [0, 1).
        key: ``[R]`` keys of the stream, of which the dimensions are a function.
    """
    tables = [m for m in network.modules() if isinstance(m, ReplicaEmbedding) and m.dim > 1]
    hooks = []
    for number, table in enumerate(tables):
        place = torch.arange(table.dim, device=key.device)
        there = uniform(splitmix64(stream_key(key, number)[:, None] + place)) >= rate
        mask = (there.to(table.weight.dtype) / (1.0 - rate))[:, None]  # [R, 1, k]
        hooks.append(table.register_forward_hook(lambda _, __, found, mask=mask: found * mask))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
