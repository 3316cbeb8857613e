"""What a rule finds. Needs neither TensorFlow nor Keras: files are linted without them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["SEVERITIES", "Finding", "count_severities"]

# The worst first.
SEVERITIES = ("error", "warning", "note")


@dataclass(frozen=True)
class Finding:
    """A rule that holds at a layer.

    Attributes:
        rule: its id.
        severity: "error": it cannot be converted or loaded elsewhere; "warning": it costs time or
            accuracy; "note": it may.
        layer: the layer's name; of a .tflite file, the operation's place in it.
        kind: the layer's class, or the operation.
        detail: what was found there.
        why: what it does to int8 or to the device.
        instead: what to use in its place.
        fixable: whether `--fix` may take it away.
    """

    rule: str
    severity: str
    layer: str
    kind: str
    detail: str
    why: str
    instead: str
    fixable: bool = False


def count_severities(findings: Sequence[Finding]) -> dict[str, int]:
    """Return how many findings there are of each severity, the worst first."""
    return {name: sum(one.severity == name for one in findings) for name in SEVERITIES}
