"""Networks whose logit is a function of other networks' on the same batch."""

import torch
from torch import Tensor, nn

from upo.core.layers import Sizes
from upo.functional.calibration import mixture_logit
from upo.functional.targeting import clever_covariate
from upo.models.estimator import Derived, Estimator
from upo.pairs import Pairs


class Mixture(Derived):
    r"""Convex combination of probabilities: :math:`\sum_j \mathrm{softmax}(\alpha)_j\,\sigma(z_j)`.

    A cross-entropy is affine in its target, so the imputed error of mixed pseudo-labels is the same
    mixture of the members' imputed errors.

    Source: Gong, Ma, "Gradient-based multiple robust learning calibration", Entropy 27(2), 2025.

    Args:
        sizes: Seeds.
        sources: Roles of the members.
        learned: Train :math:`\alpha`; otherwise the mean of the members, without parameters.
        purpose: Name of the network.
    """

    replayable = True

    alpha: Tensor

    def __init__(
        self, sizes: Sizes, *, sources: list[str], learned: bool = False, purpose: str = "mixture"
    ) -> None:
        super().__init__(tuple(sources))
        start = torch.zeros(len(sizes.seeds), len(sources))
        if learned:
            self.alpha = nn.Parameter(start)
        else:
            self.register_buffer("alpha", start, persistent=False)

    def members(self, estimator: Estimator, pairs: Pairs) -> Tensor:  # [R, B, J]
        """Logits of the members."""
        return torch.stack([estimator.logit(role, pairs) for role in self.sources], dim=-1)

    def forward(self, estimator: Estimator, pairs: Pairs) -> Tensor:
        """Logit of the mixed probability."""
        return self.mix(self.members(estimator, pairs), self.alpha)

    @staticmethod
    def mix(members: Tensor, alpha: Tensor) -> Tensor:  # [R, B, J], [R, J] -> [R, B]
        """Logit of the members' probabilities mixed in shares softmax(alpha)."""
        return mixture_logit(members, torch.log_softmax(alpha, dim=-1)[:, None])


class SharedLogit(Derived):
    r"""Logit of a network plus that of an auxiliary one: :math:`z=z_{shared}+z_{aux}`.

    With embeddings [A; B] of which A are the prediction's, this is
    :math:`\langle[U_A;U_B],[V_A;V_B]\rangle`. The auxiliary network has the global term: the
    prediction's would have to hold the logit of the density otherwise.

    Source: code of "Uncovering the limitations of eliminating selection bias", ICDE 2024 (DT).

    Args:
        sizes: Not needed; every network is given them.
        shared: Role of the network whose logit is shared.
        auxiliary: Role of what is added.
        share_gradient: Whether the shared network learns from this role.
        purpose: Name of the network.
    """

    replayable = True

    def __init__(
        self,
        sizes: Sizes,
        *,
        shared: str = "prediction",
        auxiliary: str = "auxiliary",
        share_gradient: bool = True,
        purpose: str = "shared",
    ) -> None:
        super().__init__((shared, auxiliary))
        self.share_gradient = share_gradient

    def forward(self, estimator: Estimator, pairs: Pairs) -> Tensor:
        """Sum of the two logits."""
        shared, auxiliary = (estimator.logit(role, pairs) for role in self.sources)
        return (shared if self.share_gradient else shared.detach()) + auxiliary


class Targeted(Derived):
    r"""Targeted pseudo-label.

    .. math:: \mathrm{logit}\,\tilde y'=\mathrm{logit}\,\tilde y+\epsilon H,\quad H=1/\hat p-1

    :math:`\epsilon` is set by ``upo.learners.targeting.Targeting`` and is
    0 before. On the label scale the targeting reaches the prediction's gradient; added to the
    error, :math:`\epsilon H` would be a constant there.

    Source: after Li et al., "TDR-CL", ICLR 2023. Differs: it fluctuates the pseudo-label rather
    than the imputed error.

    Args:
        sizes: Seeds.
        source: Role of the imputation that is targeted.
        propensity: Role of the propensity that divides.
        purpose: Name of the network.
    """

    replayable = True

    epsilon: Tensor

    def __init__(
        self,
        sizes: Sizes,
        *,
        source: str,
        propensity: str = "propensity",
        purpose: str = "targeted",
    ) -> None:
        super().__init__((source, propensity))
        self.register_buffer("epsilon", torch.zeros(len(sizes.seeds), 1))

    def forward(self, estimator: Estimator, pairs: Pairs) -> Tensor:
        """Logit of the targeted pseudo-label."""
        h = clever_covariate(estimator.p_hat(pairs))
        return estimator.logit(self.sources[0], pairs) + self.epsilon * h
