"""The errors a user meets, and the exit code each stands for."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "CheckFailedError",
    "EdgeheadsError",
    "MissingDependencyError",
    "RuntimeFailureError",
    "unknown_name",
]


class EdgeheadsError(Exception):
    """The input or the request is wrong. The text says what was expected, what came, what to do.

    The command line prints the text on one line, without a traceback, and leaves with
    `exit_code`.
    """

    exit_code = 2


class CheckFailedError(EdgeheadsError):
    """The request was sound, and what was checked did not hold: a model that is not as promised."""

    exit_code = 1


class RuntimeFailureError(EdgeheadsError):
    """The interpreter, the converter or the link to the device failed on a sound request."""

    exit_code = 3


class MissingDependencyError(EdgeheadsError):
    """An optional package is not installed. The text names the `pip install` that brings it."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs {package}, which is not installed; "
            f'run: pip install "edgeheads[{extra}]"'
        )
        self.package = package
        self.extra = extra


def unknown_name(kind: str, received: str, known: Iterable[str]) -> EdgeheadsError:
    """Return the error for a name that is in no table, with its close matches first.

    Args:
        kind: what was named, in the singular: "backbone", "task".
        received: the name as the user wrote it.
        known: every name there is.
    """
    names = sorted(known)
    close = difflib.get_close_matches(received, names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(names)}"
    return EdgeheadsError(f"unknown {kind} {received!r}; {hint}")
