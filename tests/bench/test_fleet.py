"""Several devices at once: who is done, who failed, and what the exit code says."""

from __future__ import annotations

import threading

import pytest

from edgeheads.bench.fleet import on_every_device
from edgeheads.device import DeviceProfile
from edgeheads.errors import CheckFailedError, EdgeheadsError, RuntimeFailureError


def _pi(host: str) -> DeviceProfile:
    return DeviceProfile(name="pi", link="ssh", host=host)


def test_devices_work_at_the_same_time() -> None:
    meeting = threading.Barrier(2, timeout=10)
    result = on_every_device(
        [DeviceProfile(), _pi("me@a")], lambda profile, _: (meeting.wait(), profile.name)[1]
    )
    assert result.done == {"host": "host", "pi@a": "pi"}
    result.require_all()


def test_one_that_fails_leaves_the_others_alone() -> None:
    def work(profile: DeviceProfile, _: threading.Event) -> str:
        if profile.host == "me@b":
            raise CheckFailedError("it is broken")
        return profile.host

    result = on_every_device([_pi("me@a"), _pi("me@b"), _pi("me@c")], work)
    assert result.done == {"pi@a": "me@a", "pi@c": "me@c"}
    with pytest.raises(RuntimeFailureError, match="1 of 3 devices failed: pi@b: it is broken"):
        result.require_all()


def test_a_single_device_keeps_its_own_error() -> None:
    def work(profile: DeviceProfile, _: threading.Event) -> None:
        raise CheckFailedError("it is broken")

    with pytest.raises(CheckFailedError, match=r"^it is broken$"):
        on_every_device([DeviceProfile()], work).require_all()


def test_a_device_named_twice() -> None:
    with pytest.raises(EdgeheadsError, match="device pi@a is named 2 times"):
        on_every_device([_pi("me@a"), _pi("you@a")], lambda *_: None)
