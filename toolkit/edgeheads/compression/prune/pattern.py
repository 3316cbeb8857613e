"""Where the zeros of a sparse kernel may stand."""

from __future__ import annotations

import re
from dataclasses import dataclass

from edgeheads.errors import EdgeheadsError

__all__ = ["Pattern", "parse_pattern", "require_fitting"]

_NM = re.compile(r"(\d+):(\d+)")
_BLOCK = re.compile(r"(\d+)x(\d+)")


@dataclass(frozen=True)
class Pattern:
    """Where zeros may stand. A kernel is seen as a matrix [inputs, outputs].

    Attributes:
        kind: "unstructured"; "n:m": of each `columns` neighbours along the inputs, at most `rows`
            are left in the end (2:4: Mishra et al. 2021); "block": of `rows` inputs by `columns`
            outputs, all or none are zero.
        rows: see above.
        columns: see above.
    """

    kind: str = "unstructured"
    rows: int = 1
    columns: int = 1

    @property
    def text(self) -> str:
        """What `parse_pattern` reads."""
        if self.kind == "n:m":
            return f"{self.rows}:{self.columns}"
        return f"{self.rows}x{self.columns}" if self.kind == "block" else self.kind


def parse_pattern(text: str) -> Pattern:
    """Read "unstructured", "2:4" (2 of every 4 stay), or "4x1" (blocks of inputs x outputs).

    Raises:
        EdgeheadsError: anything else.
    """
    if text == "unstructured":
        return Pattern()
    if match := _NM.fullmatch(text):
        stay, of = int(match[1]), int(match[2])
        if 0 < stay < of:
            return Pattern("n:m", stay, of)
    elif (match := _BLOCK.fullmatch(text)) and int(match[1]) * int(match[2]) > 1:
        return Pattern("block", int(match[1]), int(match[2]))
    raise EdgeheadsError(
        "a sparsity pattern must be unstructured, N:M with 0 < N < M such as 2:4, or ROWSxCOLUMNS "
        f"of more than one weight such as 4x1, received {text!r}"
    )


def require_fitting(pattern: Pattern, sparsity: float) -> None:
    """Raise EdgeheadsError where a pattern has not so many zeros."""
    most = 1 - pattern.rows / pattern.columns if pattern.kind == "n:m" else 1.0
    if sparsity > most:
        raise EdgeheadsError(
            f"the pattern {pattern.text} has {most:.0%} zeros at most, received a final sparsity "
            f"of {sparsity:.0%}"
        )
