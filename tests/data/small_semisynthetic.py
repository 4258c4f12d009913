"""A small log to complete, and a completion that is quick."""

import torch

from upo.data.semisynthetic_completion import Completion, LogRows

QUICK = Completion(dim=3, lr=0.02, batch=64, max_epochs=4)


def rows(n=200, n_users=12, n_items=9, seed=0):
    g = torch.Generator().manual_seed(seed)
    users = torch.randint(n_users, (n,), generator=g)
    items = torch.randint(n_items, (n,), generator=g)
    return LogRows(users, items, torch.randint(1, 6, (n,), generator=g).double())
