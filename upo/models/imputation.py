"""The meanings of the imputed error e_hat, each with the prediction error it goes with.

All expose ``error(f_logit, label)`` and ``imputed(f_logit, g_logit)``, where ``g_logit`` is the
output of the imputation network. Which side is frozen is the caller's choice.
"""

import torch
from torch import Tensor, nn

from upo.core.layers import Sizes
from upo.errors import InputError
from upo.functional.pointwise import cross_entropy, squared_error


class PseudoLabel:
    r"""Form A, the default: :math:`\hat e = CE(f, \tilde y)`, label :math:`\tilde y=\sigma(g)`.

    The only form through which imputation reaches the prediction's gradient with a cross-entropy.
    """

    replayable = True
    target = "positive"

    def error(self, f_logit: Tensor, label: Tensor) -> Tensor:
        """e: cross-entropy against the label."""
        return cross_entropy(f_logit, label)

    def imputed(self, f_logit: Tensor, g_logit: Tensor) -> Tensor:
        """e_hat: cross-entropy against the pseudo-label."""
        return cross_entropy(f_logit, torch.sigmoid(g_logit))

    def regression(self, f_logit: Tensor, label: Tensor, g_logit: Tensor) -> tuple[Tensor, Tensor]:
        """What imputation is fitted to on an observed row, and its fit: e and e_hat."""
        return self.error(f_logit, label), self.imputed(f_logit, g_logit)


class Residual:
    r"""Form B, squared errors: :math:`\hat e=(f-\mathrm{sg}(f)-g)^2`, where g imputes r - f.

    Source: Wang et al., ICML 2019, section 4.
    """

    replayable = True
    target = "positive"

    def error(self, f_logit: Tensor, label: Tensor) -> Tensor:
        """e: squared error against the label."""
        return squared_error(f_logit, label)

    def imputed(self, f_logit: Tensor, g_logit: Tensor) -> Tensor:
        """e_hat: squared imputed residual, with the gradient of (r - f)^2 at r = f + g."""
        f = torch.sigmoid(f_logit)
        return (f - f.detach() - torch.tanh(g_logit)) ** 2

    def regression(self, f_logit: Tensor, label: Tensor, g_logit: Tensor) -> tuple[Tensor, Tensor]:
        """The residual r - f and its imputation g: squared errors would not tell g's sign."""
        return label - torch.sigmoid(f_logit), torch.tanh(g_logit)


class SquaredPseudoLabel:
    r"""Form A with squared errors: :math:`\hat e=(f-\tilde y)^2`, as official IPS-V2/DR-V2 code.

    Source: Li et al., "Propensity matters", ICML 2023.
    """

    replayable = True
    target = "positive"

    def error(self, f_logit: Tensor, label: Tensor) -> Tensor:
        """e: squared error against the label."""
        return squared_error(f_logit, label)

    def imputed(self, f_logit: Tensor, g_logit: Tensor) -> Tensor:
        """e_hat: squared error against the pseudo-label."""
        return squared_error(f_logit, torch.sigmoid(g_logit))

    def regression(self, f_logit: Tensor, label: Tensor, g_logit: Tensor) -> tuple[Tensor, Tensor]:
        """What imputation is fitted to on an observed row, and its fit: e and e_hat."""
        return self.error(f_logit, label), self.imputed(f_logit, g_logit)


class DirectError:
    r"""Form C, eq. (2) of UPO: :math:`\hat e=\mathrm{softplus}(g)`, free of the prediction.

    The prediction's gradient is then that of IPS exactly, so this form is for estimating a loss and
    for diagnostics rather than for training.
    """

    replayable = True
    target = "positive"

    def error(self, f_logit: Tensor, label: Tensor) -> Tensor:
        """e: cross-entropy against the label."""
        return cross_entropy(f_logit, label)

    def imputed(self, f_logit: Tensor, g_logit: Tensor) -> Tensor:
        """e_hat: regressed error, at least 0."""
        return torch.nn.functional.softplus(g_logit)

    def regression(self, f_logit: Tensor, label: Tensor, g_logit: Tensor) -> tuple[Tensor, Tensor]:
        """What imputation is fitted to on an observed row, and its fit: e and e_hat."""
        return self.error(f_logit, label), self.imputed(f_logit, g_logit)


class PseudoRating:
    r"""Form A of ratings: :math:`\hat e=(f-\tilde r)^2`, where the imputation is a pseudo-rating.

    Of standardised ratings, as all that networks say of ratings is. Where it is fitted by
    ``regression=label``, imputation is what ``ResidualRating`` calls f + g.
    """

    replayable = True
    target = "rating"

    def error(self, f_logit: Tensor, label: Tensor) -> Tensor:
        """e: squared error against the rating."""
        return (f_logit - label) ** 2

    def imputed(self, f_logit: Tensor, g_logit: Tensor) -> Tensor:
        """e_hat: squared error against the pseudo-rating."""
        return (f_logit - g_logit) ** 2

    def regression(self, f_logit: Tensor, label: Tensor, g_logit: Tensor) -> tuple[Tensor, Tensor]:
        """What imputation is fitted to on an observed row, and its fit: e and e_hat."""
        return self.error(f_logit, label), self.imputed(f_logit, g_logit)


class ResidualRating:
    r"""Form B of ratings: :math:`\hat e=(f-\mathrm{sg}(f)-g)^2`, where g imputes r - f.

    Source: Wang et al., "Doubly robust joint learning", ICML 2019, section 4, whose errors are
    squared ones of ratings. Differs: of standardised ratings.
    """

    replayable = True
    target = "rating"

    def error(self, f_logit: Tensor, label: Tensor) -> Tensor:
        """e: squared error against the rating."""
        return (f_logit - label) ** 2

    def imputed(self, f_logit: Tensor, g_logit: Tensor) -> Tensor:
        """e_hat: squared imputed residual, with the gradient of (r - f)^2 at r = f + g."""
        return (f_logit - f_logit.detach() - g_logit) ** 2

    def regression(self, f_logit: Tensor, label: Tensor, g_logit: Tensor) -> tuple[Tensor, Tensor]:
        """The residual r - f and its imputation g: squared errors would not tell g's sign."""
        return label - f_logit, g_logit


class ConstantImputation(nn.Module):
    """A constant pseudo-label for each replica (doubly robust without an imputation network).

    Args:
        sizes: Seeds; every network is built with the same arguments.
        label: Pseudo-label in (0, 1), or None to estimate it before the stage that uses it, as the
            self-normalised IPS mean of the training labels.
        purpose: Unused.

    Raises:
        InputError: If ``label`` is outside (0, 1).
    """

    replayable = True

    logit: Tensor

    def __init__(
        self,
        sizes: Sizes,
        *,
        label: float | None = None,
        purpose: str = "constant",
    ) -> None:
        super().__init__()
        if label is not None and not 0 < label < 1:
            raise InputError(f"imputation label must lie in (0, 1), got {label}; try 0.5.")
        self.estimate = label is None
        start = torch.full((len(sizes.seeds), 1), 0.5 if label is None else float(label))
        self.register_buffer("logit", torch.logit(start))

    def set_output(self, output: Tensor) -> None:  # [R]
        """Fix what it says of every pair."""
        self.logit.copy_(output[:, None])

    def forward(self, users: Tensor, items: Tensor) -> Tensor:  # [R, B] -> [R, B]
        """The constant logit for every pair."""
        return self.logit.expand_as(users)
