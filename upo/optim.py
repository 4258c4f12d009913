"""Old place of upo.core.optim, until conf/ names the new one."""

from upo.core.optim import ReplicaAdam as ReplicaAdam
