"""D = users x items, never materialised."""

from upo.pairs.sampler import BatchSampler
from upo.pairs.space import Batch, ObservedPairs, Pairs, PairSpace

__all__ = ["Batch", "BatchSampler", "ObservedPairs", "PairSpace", "Pairs"]
