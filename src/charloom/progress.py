"""The type of a progress callback, one for the whole package."""

from collections.abc import Callable

# Called with the stage ("reading", "scoring", …), the units done, and their total, or None where
# the total is unknown. The units are bytes of a download, and characters everywhere else.
OnProgress = Callable[[str, int, int | None], None]
