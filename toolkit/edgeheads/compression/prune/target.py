"""How small a pruned model must be: in operations, parameters, bytes or milliseconds."""

from __future__ import annotations

import re
from dataclasses import dataclass

from edgeheads.errors import EdgeheadsError, unknown_name

__all__ = ["TARGETS", "Target", "parse_target"]

# kind -> {unit: factor}. The first unit is what the value is kept and printed in.
TARGETS: dict[str, dict[str, float]] = {
    "macs": {"": 1, "k": 1e3, "M": 1e6, "G": 1e9},
    "parameters": {"": 1, "k": 1e3, "M": 1e6},
    "size": {"B": 1, "kB": 1e3, "MB": 1e6},
    "latency": {"ms": 1, "us": 1e-3, "s": 1e3},
}

_TEXT = re.compile(r"(\w+)=(\d*\.?\d+(?:e-?\d+)?)(%|[a-zA-Z]*)")


@dataclass(frozen=True)
class Target:
    """What a pruned model must not exceed.

    Attributes:
        kind: a key of `TARGETS`: multiply-accumulates of one image, parameters, bytes of the
            .tflite file, or its median latency on a device.
        value: a share of the model's present value, or an amount in the kind's first unit.
        relative: which of the two.
    """

    kind: str
    value: float
    relative: bool = True

    @property
    def measured(self) -> bool:
        """Whether a file must be made to know the value."""
        return self.kind in ("size", "latency")

    @property
    def text(self) -> str:
        """What `parse_target` reads."""
        if self.relative:
            return f"{self.kind}={self.value:g}"
        amount = f"{self.value:.3f}" if self.kind == "latency" else f"{self.value:.0f}"
        return f"{self.kind}={amount}{next(iter(TARGETS[self.kind]))}"

    def step(self, done: float, index: int, rounds: int) -> Target:
        """Return the target of one of several rounds: each removes the same share.

        Args:
            done: the value that the target is a share of, before the first round.
            index: of the round, from 0.
            rounds: how many there are.
        """
        share = self.value if self.relative else min(1.0, self.value / done)
        return Target(self.kind, done * share ** ((index + 1) / rounds), relative=False)

    def limit(self, before: float) -> float:
        """Return the amount not to exceed, given the present one."""
        return before * self.value if self.relative else self.value


def parse_target(text: str) -> Target:
    """Read "macs=0.5", "parameters=50%", "macs=20M", "size=300kB" or "latency=2.5ms".

    A number without a unit is a share of the model's present value where it is at most 1.

    Raises:
        EdgeheadsError: text of another form, an unknown kind or unit, a share out of (0, 1].
    """
    match = _TEXT.fullmatch(text.strip())
    if not match:
        raise EdgeheadsError(
            f"target must be like macs=0.5, parameters=200k, size=300kB or latency=0.6, "
            f"received {text!r}"
        )
    kind, number, unit = match.groups()
    if kind not in TARGETS:
        raise unknown_name("target", kind, TARGETS)
    value = float(number)
    if unit == "%" or (not unit and value <= 1):
        value = value / 100 if unit else value
        if not 0 < value <= 1:
            raise EdgeheadsError(f"target {text!r} must be a share above 0 and at most 1")
        return Target(kind, value)
    if unit not in TARGETS[kind]:
        units = ", ".join(one for one in TARGETS[kind] if one)
        raise EdgeheadsError(
            f"target {text!r} must be a share such as {kind}=0.5, or have one of the units {units}"
        )
    value *= TARGETS[kind][unit]
    if value <= 0:
        raise EdgeheadsError(f"target {text!r} must be above 0")
    return Target(kind, value, relative=False)
