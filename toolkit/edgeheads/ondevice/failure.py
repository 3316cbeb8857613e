"""Why a request cannot be answered."""

from __future__ import annotations

from typing import Any

__all__ = ["FAILURE_EXIT_CODE", "MeasureError", "bad_request"]

FAILURE_EXIT_CODE = 3


class MeasureError(Exception):
    """A request that cannot be answered; becomes the "error" of the result."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = " ".join(message.split())


def bad_request(expected: str, received: Any) -> MeasureError:
    """Return the error for a request that the program does not understand."""
    return MeasureError(
        "bad-request", f"expected {expected}, received {received!r}; fix the request"
    )
