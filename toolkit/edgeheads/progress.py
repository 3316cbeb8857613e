"""How long work reports where it is. The command line draws it; by default nothing is shown."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

__all__ = ["Progress", "SilentProgress", "Step"]


class Step(Protocol):
    """One stretch of work."""

    def advance(self, amount: int = 1, note: str = "") -> None:
        """Say that `amount` more of the total is done; `note` replaces the text beside the bar."""


class Progress(Protocol):
    """Where work reports."""

    def step(self, title: str, total: int | None = None) -> AbstractContextManager[Step]:
        """Open a stretch of work of `total` parts; None: nobody knows how many."""


class _SilentStep:
    def advance(self, amount: int = 1, note: str = "") -> None:
        """Show nothing."""


class SilentProgress:
    """Shows nothing: for library use and --json."""

    @contextmanager
    def step(self, title: str, total: int | None = None) -> Iterator[Step]:
        """Open a stretch of work that nobody watches."""
        yield _SilentStep()
