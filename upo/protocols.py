"""Old place of upo.evaluation.protocols, until conf/ names the new one."""

from upo.evaluation.protocols import Holdout as Holdout
from upo.evaluation.protocols import MarHoldout as MarHoldout
from upo.evaluation.protocols import TestSelected as TestSelected
