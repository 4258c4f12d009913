"""Tri-training: pairs on which two predictors agree become labels for a third."""

import torch
from torch import Tensor

from upo.core.distributed import batch_sum
from upo.core.optim import Hyper, per_replica, placed
from upo.errors import InputError
from upo.functional.pointwise import cross_entropy
from upo.learners.base import GradientLearner, Logs, Optimizer
from upo.learners.penalty import Strengths
from upo.models.estimator import Estimator
from upo.pairs import Batch


def agreement_loss(
    logit: Tensor, first_logit: Tensor, second_logit: Tensor, tau: float | Tensor
) -> tuple[Tensor, Tensor]:  # [R, B] x 3 -> [R], [R]
    r"""Mean cross-entropy against the first teacher where :math:`|f_1-f_2|<\tau`, and their number.

    0 where the teachers agree nowhere.

    Source: Saito, "Asymmetric tri-training for debiasing missing-not-at-random explicit feedback",
    SIGIR 2020. Differs: probabilities and a cross-entropy in the place of ratings and their squared
    error; the difference is taken in absolute value, which a public port forgets.

    Args:
        logit: Logits of the third predictor.
        first_logit: Logits of the first, whose probability is the pseudo-label.
        second_logit: Logits of the second.
        tau: Threshold on the probability scale, at least 0; a number or ``[R, 1]``.
    """
    label = torch.sigmoid(first_logit.detach())
    agree = ((label - torch.sigmoid(second_logit.detach())).abs() < tau).to(logit.dtype)
    count = batch_sum(agree)
    return batch_sum(agree * cross_entropy(logit, label)) / count.clamp(min=1.0), count


class AgreementLearner(GradientLearner):
    """Fits a predictor to what two others agree on; replicas without agreement stand still.

    The author's continued training of the first two predictors is this learner again, with
    ``network: first`` and ``teachers: [second, prediction]``.

    Args:
        estimator: The networks.
        optimizer: Partial optimiser.
        teachers: Roles of the two predictors; the first gives the pseudo-label.
        tau: Threshold on the probability scale, in [0, 1]; a number or one for each replica.
        network: Role of the trained network.
        penalty: Strengths of the penalty on looked-up rows; see ``TablePenalty``.

    Raises:
        InputError: If ``tau`` is out of range, a teacher is missing, or they are not two.
    """

    replayable = True

    def __init__(
        self,
        estimator: Estimator,
        *,
        optimizer: Optimizer,
        teachers: list[str],
        tau: Hyper = 0.05,
        network: str = "prediction",
        penalty: Strengths | None = None,
    ) -> None:
        super().__init__(estimator, optimizer=optimizer, network=network, penalty=penalty)
        if len(set(teachers)) != 2 or not set(teachers) <= set(estimator.networks):
            raise InputError(
                f"teachers must be two of {list(estimator.networks)}, got {list(teachers)}."
            )
        threshold = per_replica(tau, estimator.space.replicas, "tau")
        values = torch.as_tensor(threshold)
        if not bool(((values >= 0) & (values <= 1)).all()):
            raise InputError(f"tau must lie in [0, 1], got {tau}; try 0.05.")
        self.teachers = tuple(teachers)
        self.tau = threshold if isinstance(threshold, float) else threshold[:, None]

    def update(self, batch: Batch) -> Logs:
        """Descend; the teachers are frozen."""
        pairs = batch.pairs
        first, second = (self.estimator.logit(role, pairs) for role in self.teachers)
        tau = placed(self.tau, first.device)
        loss, count = agreement_loss(self.estimator.logit(self.network, pairs), first, second, tau)
        before = [p.detach().clone() for p in self.params]
        self.step(loss)
        # momentum and decay would move a replica that has nothing to learn from
        moved = count > 0
        with torch.no_grad():
            for p, old in zip(self.params, before, strict=True):
                live, kept = p.view(len(moved), -1), old.view(len(moved), -1)
                live.copy_(torch.where(moved[:, None], live, kept))
        return {"loss": loss.detach(), "agreeing": count / pairs.total}
