"""A trained estimator that answers for a table's ids."""

from upo.fitted.model import Fitted, NotFittedError
from upo.fitted.run_folder import load

__all__ = ["Fitted", "NotFittedError", "load"]
