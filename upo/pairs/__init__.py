"""D = users x items, never materialised."""

from upo.pairs.sampler import BatchSampler, sampled_pairs, training_rows
from upo.pairs.space import Batch, ObservedPairs, Pairs, PairSpace

__all__ = [
    "Batch",
    "BatchSampler",
    "ObservedPairs",
    "PairSpace",
    "Pairs",
    "sampled_pairs",
    "training_rows",
]
