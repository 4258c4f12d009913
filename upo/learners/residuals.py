"""UPO's loss under fixed weights (``upo.models.metric_weights``) as penalties of the propensity."""

from collections.abc import Callable

from torch import Tensor

from upo.core.optim import Hyper
from upo.functional.propensity import binned_upo_loss
from upo.learners.strength import Strength
from upo.models.estimator import Estimator
from upo.pairs import Pairs


class ResidualPenalty:
    r"""UPO's loss with a fixed weight in the adversary's place: :math:`\beta L_{UPO}(w)`.

    Source: UPO (AAAI 2026), Lemma 2; after Zhang, Xia, "CBPL", IJCAI workshop 2025, of which only
    the abstract was at hand.

    Args:
        weight: Function of (estimator, pairs, frozen p_hat) that gives w ``[R, B]``.
        beta: Strength, at least 0.
    """

    replayable = True
    reads_bins = True

    def __init__(
        self, *, weight: Callable[[Estimator, Pairs, Tensor], Tensor], beta: Hyper = 1.0
    ) -> None:
        self.weight, self.beta = weight, Strength(beta, "beta")

    def __call__(self, estimator: Estimator, pairs: Pairs, p_hat: Tensor) -> Tensor:
        """The penalty ``[R]``."""
        weight = self.weight(estimator, pairs, p_hat.detach())
        index = estimator.bin_index(pairs, p_hat)
        loss = binned_upo_loss(p_hat, pairs.o, weight, index, estimator.bins.num_bins)
        return self.beta(loss)
