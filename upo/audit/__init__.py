"""The audit of given propensities: are they calibrated, do they balance, and where are they wrong?

``docs/audit.md`` explains each part; ``python -m upo.audit`` and ``upo.audit(pairs)`` run it: the
package can be called, before and after ``import upo.audit``.
"""

import sys
from types import ModuleType

from upo.audit.result import Audit, audit

__all__ = ["Audit", "audit"]


class _Callable(ModuleType):
    __call__ = staticmethod(audit)


sys.modules[__name__].__class__ = _Callable
