"""The public losses in one place: pure functions of tensors, ``[R, B] -> [R]``.

``upo_loss`` is equation (4) of the UPO paper. Those of the estimators take observed rows (suffix
``_o``) and pairs of the whole space; each docstring has its source.
"""

from upo.functional.balancing import bmse_loss, joint_cross_entropy, joint_squared_error
from upo.functional.calibration import case_control_loss, soft_ece
from upo.functional.imputation import (
    imputation_loss,
    omega_bias,
    omega_jl,
    omega_mrdr,
    omega_mse,
)
from upo.functional.multiple_robust import multiple_robust_loss
from upo.functional.pointwise import cross_entropy, squared_error
from upo.functional.prediction import dr_loss, dr_loss_public, ips_loss, naive_loss, snips_loss
from upo.functional.propensity import upo_loss

__all__ = [
    "bmse_loss",
    "case_control_loss",
    "cross_entropy",
    "dr_loss",
    "dr_loss_public",
    "imputation_loss",
    "ips_loss",
    "joint_cross_entropy",
    "joint_squared_error",
    "multiple_robust_loss",
    "naive_loss",
    "omega_bias",
    "omega_jl",
    "omega_mrdr",
    "omega_mse",
    "snips_loss",
    "soft_ece",
    "squared_error",
    "upo_loss",
]
