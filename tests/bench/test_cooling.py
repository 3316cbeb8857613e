"""Waiting for a device: on a script of temperatures, without sleeping."""

from __future__ import annotations

from typing import Any

from edgeheads.bench.cooling import CoolDownGuard
from edgeheads.device import CoolDown


class Thermometer:
    def __init__(self, *celsius: float | None) -> None:
        self._celsius = iter(celsius)

    def describe(self) -> dict[str, Any]:
        return {"conditions": {"temperature_celsius": next(self._celsius)}}


def _guard(policy: CoolDown, *celsius: float | None) -> tuple[CoolDownGuard, list[float]]:
    slept: list[float] = []
    return CoolDownGuard(Thermometer(*celsius), policy, slept.append), slept  # type: ignore[arg-type]


def test_without_a_policy_nothing_is_asked() -> None:
    guard, slept = _guard(CoolDown())
    guard()
    guard()
    assert (slept, guard.waited_seconds) == ([], [0.0, 0.0])


def test_the_pause_is_between_rounds() -> None:
    guard, slept = _guard(CoolDown(seconds=7))
    guard()
    guard()
    assert (slept, guard.waited_seconds) == ([7.0], [0.0, 7.0])


def test_waits_until_it_is_cool() -> None:
    guard, slept = _guard(CoolDown(start_below_celsius=60), 70.0, 61.0, 59.0)
    guard()
    assert slept == [5.0, 5.0]
    assert (guard.waited_seconds, guard.gave_up) == ([10.0], [])


def test_gives_up_and_says_so() -> None:
    policy = CoolDown(start_below_celsius=60, max_wait_seconds=12)
    guard, slept = _guard(policy, *[80.0] * 9)
    guard()
    assert slept == [5.0, 5.0, 2.0]
    assert guard.to_json()["gave_up"] == [0]


def test_a_device_that_tells_no_temperature_is_not_waited_for() -> None:
    guard, slept = _guard(CoolDown(start_below_celsius=60), None)
    guard()
    assert slept == []
