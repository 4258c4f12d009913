"""The two players of the minimax game: the propensity and its adversary."""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from upo.core.distributed import batch_mean
from upo.core.optim import Hyper
from upo.functional.propensity import binned_upo_loss
from upo.learners.base import GradientLearner, Logs, Optimizer
from upo.learners.penalty import Strengths
from upo.learners.strength import Strength
from upo.models.estimator import Estimator
from upo.pairs import Batch, BatchSampler, Pairs


class Penalty(Protocol):
    """A term added to the propensity loss."""

    def __call__(self, estimator: Estimator, pairs: Pairs, p_hat: Tensor) -> Tensor:
        """Penalty of each replica ``[R]``, with the graph through ``p_hat`` ``[R, B]``."""


class UPOPenalty:
    r""":math:`\beta L_{UPO}` with the adversary's weights frozen (UPO, eq. (5)).

    Args:
        beta: Strength, at least 0; a number or one for each replica.

    Raises:
        InputError: If ``beta`` is negative.
    """

    replayable = True
    reads_bins = True

    def __init__(self, *, beta: Hyper = 1.0) -> None:
        self.beta = Strength(beta, "beta")

    def __call__(self, estimator: Estimator, pairs: Pairs, p_hat: Tensor) -> Tensor:
        """The penalty ``[R]``."""
        return self.beta(self.value(estimator, pairs, p_hat))

    @staticmethod
    def value(estimator: Estimator, pairs: Pairs, p_hat: Tensor) -> Tensor:  # [R]
        """L_UPO with the adversary's weights frozen."""
        with torch.no_grad():
            weight = adversary_weight(estimator, pairs)
        index = estimator.bin_index(pairs, p_hat)
        return binned_upo_loss(p_hat, pairs.o, weight, index, estimator.bins.num_bins)


def adversary_weight(estimator: Estimator, pairs: Pairs) -> Tensor:  # [R, B]
    """w(x) on what the adversary may see, by default the propensity network's frozen features."""
    adversary = estimator.networks["adversary"]
    weight: Tensor = adversary(adversary.see(estimator, pairs))  # type: ignore[operator]
    return weight


class PropensityLearner(GradientLearner):
    """Fits the propensity on batches of D: a pointwise loss plus penalties.

    Args:
        estimator: The networks.
        optimizer: Partial optimiser.
        loss: Pointwise loss of (logit, observed), e.g. cross-entropy or the Brier score.
        penalties: Name -> term added to it.
        network: Role of the trained network.
        output: Role whose logits are fitted, where it is derived from the trained network; by
            default the trained network's own.
        penalty: Strengths of the penalty on looked-up rows; see ``TablePenalty``.

    Raises:
        InputError: If a penalty reads a network that is not there.
    """

    replayable = True

    def __init__(
        self,
        estimator: Estimator,
        *,
        optimizer: Optimizer,
        loss: Callable[[Tensor, Tensor], Tensor],
        penalties: dict[str, Penalty] | None = None,
        network: str = "propensity",
        output: str | None = None,
        penalty: Strengths | None = None,
    ) -> None:
        super().__init__(estimator, optimizer=optimizer, network=network, penalty=penalty)
        self.loss, self.output = loss, output or network
        self.penalties = dict(penalties or {})
        for part in self.penalties.values():
            estimator.check_reads(part)

    def on_epoch_start(self, epoch: int, sampler: BatchSampler) -> None:
        """Recompute adaptive bins, where a penalty, or the validation of a game, reads them."""
        read = any(getattr(penalty, "reads_bins", False) for penalty in self.penalties.values())
        if read or "adversary" in self.estimator.networks:
            self.estimator.bins.refresh(self.estimator, epoch)

    def update(self, batch: Batch) -> Logs:
        """Descend; the adversary and the other networks are frozen."""
        pairs = batch.pairs
        total = batch_mean(self.fit(pairs))
        logs = {"loss": total.detach()}
        p_hat = self.estimator.probability(self.output, pairs)
        for name, term in self.terms(batch, p_hat).items():
            logs[name] = term.detach()
            total = total + term
        self.step(total)
        return logs

    def fit(self, pairs: Pairs) -> Tensor:  # [R, B]
        """The pointwise loss, with the graph to the propensity network."""
        return self.loss(self.estimator.logit(self.output, pairs), pairs.o)

    def terms(self, batch: Batch, p_hat: Tensor) -> dict[str, Tensor]:  # name -> [R]
        """What is added to the fit; ``p_hat`` is that of the batch of D, with its graph."""
        items = self.penalties.items()
        return {name: penalty(self.estimator, batch.pairs, p_hat) for name, penalty in items}


class AdversaryLearner(GradientLearner):
    """Ascends L_UPO in the weights w; the propensity is frozen.

    Args:
        estimator: The networks.
        optimizer: Partial optimiser.
        network: Role of the trained network.
    """

    replayable = True

    def __init__(
        self, estimator: Estimator, *, optimizer: Optimizer, network: str = "adversary"
    ) -> None:
        super().__init__(estimator, optimizer=optimizer, network=network)

    def update(self, batch: Batch) -> Logs:
        """Ascend; no gradient reaches the propensity."""
        pairs, num_bins = batch.pairs, self.estimator.bins.num_bins
        p_hat = self.estimator.propensity(pairs)
        index = self.estimator.bin_index(pairs, p_hat)
        weight = adversary_weight(self.estimator, pairs)
        gain = binned_upo_loss(p_hat.detach(), pairs.o, weight, index, num_bins)
        self.step(-gain)
        return {"gain": gain.detach()}
