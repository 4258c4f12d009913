"""What a model's scores are worth over all pairs, estimated from a log that misses not at random.

``python -m upo.counterfactual log=FILE scores=FILE`` does it for files.
"""

from upo.counterfactual.evaluate import evaluate
from upo.counterfactual.open_bandit import OpenBandit, read_open_bandit
from upo.counterfactual.split import HeldOut, held_out

__all__ = ["HeldOut", "OpenBandit", "evaluate", "held_out", "read_open_bandit"]
