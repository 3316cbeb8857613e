"""Choosing which channels go."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from edgeheads.compression.prune.channels import ChannelGroup, Channels
from edgeheads.compression.prune.importance import Scores
from edgeheads.errors import EdgeheadsError, unknown_name

__all__ = ["SCOPES", "Limits", "choose", "smallest_amount"]

SCOPES = ("global", "layer")

T = TypeVar("T")


@dataclass(frozen=True)
class Limits:
    """What may be removed.

    Attributes:
        scope: "global" ranks the units of all groups in one list; "layer" removes the same share
            of each group.
        multiple: a group keeps a multiple of so many channels, rounded up: vector instructions
            work on 8 at a time, so that 17 channels cost as much as 24.
        min_fraction: of a group's channels that stay at least, in (0, 1].
        originally: {layers of a group: units that it had before an earlier round}, which
            `min_fraction` is of; of other groups, it is of those that they have.
    """

    scope: str = "global"
    multiple: int = 8
    min_fraction: float = 0.1
    originally: Mapping[tuple[str, ...], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.scope not in SCOPES:
            raise unknown_name("scope", self.scope, SCOPES)
        if self.multiple < 1:
            raise EdgeheadsError(f"multiple must be at least 1, received {self.multiple}")
        if not 0 < self.min_fraction <= 1:
            raise EdgeheadsError(f"min_fraction must be in (0, 1], received {self.min_fraction}")

    def stays(self, group: ChannelGroup, wanted: int) -> int:
        """Return how many units a group keeps where `wanted` are meant to stay."""
        total = len(group.units)
        step = self.multiple // math.gcd(self.multiple, group.width)
        least = math.ceil(self.originally.get(group.layers, total) * self.min_fraction)
        wanted = max(1, wanted, least)
        return min(total, math.ceil(wanted / step) * step)


def choose(channels: Channels, scores: Scores, amount: float, limits: Limits) -> NDArray[np.bool_]:
    """Return [channels.count], whether each unit is removed: the least important ones.

    More is removed the larger `amount` is, and nothing comes back.

    Args:
        channels: of the model.
        scores: of the units; an infinite one stays.
        amount: in [0, 1], the share of units to remove before limits are kept.
        limits: what may be removed.
    """
    removed = channels.none
    order = np.argsort(scores, kind="stable")
    lowest = np.zeros(channels.count, bool)
    lowest[order[: round(amount * channels.count)]] = True
    lowest &= np.isfinite(scores)
    for group in channels.groups:
        total, finite = len(group.units), np.isfinite(scores[group.units]).sum()
        if limits.scope == "global":
            going = int(lowest[group.units].sum())
        else:
            going = min(round(amount * total), int(finite))
        going = total - limits.stays(group, total - going)
        ranked = group.units[np.argsort(scores[group.units], kind="stable")]
        removed[ranked[:going]] = True
    return removed


def smallest_amount(reaches: Callable[[float], bool], steps: int) -> float:
    """Return the smallest amount that reaches a target, by bisection; 1 does.

    Args:
        reaches: whether an amount in [0, 1] does; if one does, so do all larger ones.
        steps: halvings of the interval.
    """
    low, high = 0.0, 1.0
    for _ in range(steps):
        middle = (low + high) / 2
        low, high = (low, middle) if reaches(middle) else (middle, high)
    return high
