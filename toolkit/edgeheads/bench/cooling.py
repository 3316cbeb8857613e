"""Waiting for a device that heats up."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from edgeheads.device import CoolDown
from edgeheads.runtime import DeviceSession

__all__ = ["CoolDownGuard"]

_POLL_SECONDS = 5.0


class CoolDownGuard:
    """Pauses before each round as a profile's cool-down policy says.

    Before the first round it waits for the temperature only. A device that does not tell its
    temperature is not waited for, beyond the pause.

    Args:
        session: the device.
        policy: the profile's.
        sleep: of seconds; for tests.
    Attributes:
        waited_seconds: before each round so far.
        gave_up: the rounds (0, 1, ...) that began too warm, as the longest wait was over.
    """

    def __init__(
        self,
        session: DeviceSession,
        policy: CoolDown,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._session = session
        self._policy = policy
        self._sleep = sleep
        self.waited_seconds: list[float] = []
        self.gave_up: list[int] = []

    def __call__(self) -> None:
        """Wait before the next round."""
        waited = float(self._policy.seconds) if self.waited_seconds else 0.0
        if waited:
            self._sleep(waited)
        limit = self._policy.start_below_celsius
        if limit:
            longest = waited + self._policy.max_wait_seconds
            while self._is_warmer(limit):
                if waited >= longest:
                    self.gave_up.append(len(self.waited_seconds))
                    break
                step = min(_POLL_SECONDS, longest - waited)
                self._sleep(step)
                waited += step
        self.waited_seconds.append(waited)

    def to_json(self) -> dict[str, Any]:
        """Return the policy and what came of it."""
        return {
            "seconds": self._policy.seconds,
            "start_below_celsius": self._policy.start_below_celsius,
            "waited_seconds": self.waited_seconds,
            "gave_up": self.gave_up,
        }

    def _is_warmer(self, limit: float) -> bool:
        conditions = self._session.describe()["conditions"]
        celsius = conditions.get("temperature_celsius")
        return celsius is not None and celsius >= limit
