"""Old place of upo.functional.pointwise, until conf/ names the new one."""

from upo.functional.pointwise import cross_entropy as cross_entropy
from upo.functional.pointwise import squared_error as squared_error
