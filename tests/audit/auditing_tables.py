"""Tables to audit: worlds with known propensities, right or wrong in one segment of users."""

import numpy as np
import pandas as pd
import torch

from upo.data.world import SyntheticWorld

REGIONS = np.array(list("ABCDEF"))


def true_table(seed, size=100):
    """Every pair of a synthetic world with its true propensity."""
    world = SyntheticWorld(size, size, seed=seed)
    users = torch.arange(size).repeat_interleave(size)
    items = torch.arange(size).repeat(size)
    return pd.DataFrame(
        {
            "user": users.numpy(),
            "item": items.numpy(),
            "observed": world.observed(users, items).int().numpy(),
            "propensity": world.propensity(users, items).numpy(),
        }
    )


def with_columns(table, seed, *, odds=1.0, hidden=False):
    """Six regions of users and noise; in region B the odds of the propensity are multiplied.

    With ``hidden`` there is no region, but one column of 0 and 1 among four of noise.
    """
    rng = np.random.default_rng(seed)
    n_users, n_items = table.user.nunique(), table.item.nunique()
    region = REGIONS[rng.integers(len(REGIONS), size=n_users)]
    wrong = (region == "B")[table.user]
    right = table.propensity / (1 - table.propensity)
    scaled = right * np.where(wrong, odds, 1.0)
    noise = {f"noise_{k}": rng.normal(size=n_users)[table.user] for k in range(2)}
    noise |= {f"noise_{k}": rng.normal(size=n_items)[table.item] for k in range(2, 4)}
    named = {"flag": wrong.astype(float)} if hidden else {"region": region[table.user]}
    return table.assign(propensity=scaled / (1 + scaled), **noise, **named)


def sampled(table, seed, keep=0.25):
    """All observed rows and a share of the others, with the number of pairs they stand for."""
    rng = np.random.default_rng(seed)
    seen = table.observed == 1
    rows = seen | (rng.random(len(table)) < keep)
    return table.assign(weight=np.where(seen, 1.0, 1 / keep))[rows].reset_index(drop=True)
