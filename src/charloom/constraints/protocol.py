"""The protocol of a constraint, and the constraints of one sample.

V is the number of characters in the vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

UNLIMITED = 2**31 - 1  # characters left of a sample without a largest length


class Constraint(Protocol):
    """A set of texts. A state stands for the beginning of a text.

    Attributes:
        least: the smallest number of characters of a text.
        is_regular: whether it is an automaton, which kernels can follow.
    """

    least: int
    is_regular: bool

    def start(self) -> Any:
        """Return the state before the first character."""
        ...

    def allowed(self, state: Any, left: int) -> NDArray[np.bool_]:
        """Return the characters, (V,), that can come next in at most `left` further characters."""
        ...

    def advance(self, state: Any, id_: int, left: int) -> Any | None:
        """Return the state after an allowed character, which leaves `left` more.

        A constraint that cannot answer `allowed` exactly returns None where the text cannot end in
        time. The state does not change, and another character must be chosen.
        """
        ...

    def may_end(self, state: Any) -> bool:
        """Return whether the text can end here."""
        ...

    def must_end(self, state: Any) -> bool:
        """Return whether no character can follow."""
        ...


@dataclass(frozen=True, eq=False)
class Constraints:
    """All restrictions of a request. Its samples share them.

    Attributes:
        constraint: the texts that a sample can be, if they are restricted.
        bias: additions to the logits, (V,), if any.
        end_ids: the symbols that end a sample where it can end, unless the constraint itself allows
            them there. They are not part of it: the end of a document, or a line break.
    """

    constraint: Constraint | None = None
    bias: NDArray[np.float64] | None = None
    end_ids: tuple[int, ...] = ()
    kept: dict[str, Any] = field(default_factory=dict, repr=False)  # made from them, for kernels

    @property
    def is_regular(self) -> bool:
        """True if a kernel can follow the constraint, or without one."""
        return self.constraint is None or self.constraint.is_regular

    @property
    def can_exclude(self) -> bool:
        """Return whether they can exclude characters, and not only change their probabilities."""
        biased = self.bias is not None and bool(np.isneginf(self.bias).any())
        return biased or self.constraint is not None

    @property
    def least(self) -> int:
        """The smallest number of characters of a sample."""
        return 0 if self.constraint is None else self.constraint.least
