"""The rows of ``conf/estimator``, and those that every change is tried on."""

from pathlib import Path

import pytest

CONF = Path(__file__).resolve().parents[1] / "conf"
NAMES = sorted(path.stem for path in (CONF / "estimator").glob("*.yaml"))
# Their learners and networks are those of all rows (tests/runs/test_configs.py holds that); the
# others put the same parts together.
KINDS = [
    *("naive", "ips", "asips", "cvib", "eib", "autodebias", "dr", "cdr", "rd_ips", "rd_dr"),
    *("brd_dr", "tdr_jl", "stable_dr", "user_item_dr", "cali_mr", "dr_v2", "akbdr", "wkb_dr"),
    *("dr_gpl", "umvue_dr", "cbpl", "dce_tdr", "dt_dr", "n_dr", "upo_dr"),
]

# unbiased at known propensities, whatever the imputation
CLAIM_UNBIASED = {
    *("ips", "asips", "ips_v2", "kbips", "akbips", "upo_ips", "dr", "dr_jl", "mrdr_jl"),
    *("dr_bias", "dr_mse", "dr_v2", "dr_gpl", "umvue_dr", "cbpl", "tdr", "tdr_jl", "kbdr"),
    *("akbdr", "dce_dr", "dce_tdr", "upo_dr", "mrdr_gpl", "user_item_dr", "cdr", "wkb_ips"),
    *("wkb_dr", "dt_ips", "dt_dr", "n_ips", "n_dr", "n_mrdr", "dr_var"),
}


def each():
    """Every row as a parameter; those that are of no kind of their own are marked."""
    return slow_if_known(NAMES)


def slow_if_known(names):
    """These rows as parameters, of which those outside ``KINDS`` are marked."""
    return [name if name in KINDS else pytest.param(name, marks=pytest.mark.slow) for name in names]
