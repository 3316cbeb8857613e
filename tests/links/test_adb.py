"""The link over adb: the real program without a device, a stand-in for the rest."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import stand_ins

from edgeheads.device import DeviceProfile, load_device
from edgeheads.errors import EdgeheadsError, RuntimeFailureError
from edgeheads.links.adb import TERMUX, AdbLink
from edgeheads.links.shell import ShellLink


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = stand_ins.install(tmp_path / "bin", stand_ins.DEVICE)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def test_every_call_names_the_device_and_becomes_termux(programs: Path) -> None:
    with AdbLink("emulator-5554") as link:
        assert link.run(["echo", "a b"], 30).stdout == "a b\n"
    calls = (programs / "calls").read_text()
    starts = [line for line in calls.splitlines() if line.startswith("-s ")]
    assert starts
    assert all(line.startswith("-s emulator-5554 shell -T run-as com.termux") for line in starts)
    assert TERMUX[-1] in calls


def test_a_benchmark_binary_needs_no_termux(programs: Path) -> None:
    with AdbLink.from_profile(load_device("android-gpu")) as link:
        link.run(["echo"], 30)
    assert "run-as" not in (programs / "calls").read_text()


def test_a_pulled_cable(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeheads.links.shell._ATTEMPTS", 2)
    monkeypatch.setattr(ShellLink, "grace_seconds", 1)
    with AdbLink() as link:
        (programs / "unplugged").touch()
        with pytest.raises(RuntimeFailureError) as caught:
            link.run(["echo"], 30)
    assert "could not be made again" in str(caught.value)
    assert "it is offline; plug it in again, then run: adb reconnect" in str(caught.value)


@pytest.mark.parametrize("serial", ["-x", "a b", "a;b", "$(x)"])
def test_a_serial_that_is_none(serial: str) -> None:
    with pytest.raises(EdgeheadsError, match="a serial must be as `adb devices` prints it"):
        AdbLink(serial)


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        ("error: device 'x' not found", "no device of this serial"),
        ("error: more than one device/emulator", "say which, --serial SERIAL"),
        ("error: device unauthorized.\nThis adb server's", "it does not trust this machine yet"),
        ("run-as: unknown package: com.termux", "it has no Termux"),
        ("run-as: package not debuggable: com.termux", "its Termux cannot be entered"),
        ("* daemon not running\nnew words", "adb says: new words; try: adb devices -l"),
    ],
)
def test_what_adb_says(words: str, advice: str) -> None:
    assert advice in AdbLink()._reason(words)


@pytest.fixture
def real_adb(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Debian's adb with a server of its own."""
    if shutil.which("adb") is None:
        pytest.skip("needs adb: apt-get install adb")
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", "53791")
    monkeypatch.setenv("ADB_MDNS", "0")
    try:
        yield
    finally:
        subprocess.run(["adb", "kill-server"], capture_output=True, timeout=30)


def test_no_device_is_connected(real_adb: None) -> None:
    with pytest.raises(RuntimeFailureError) as caught, AdbLink():
        pass
    assert str(caught.value) == (
        "the Android device cannot be used: no device is connected; plug it in, turn USB "
        "debugging on, and see: adb devices"
    )
    with pytest.raises(RuntimeFailureError, match="no device of this serial is connected"):
        AdbLink("absent").__enter__()


def test_no_adb_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimeFailureError, match="adb does not start: No such file"):
        AdbLink.from_profile(DeviceProfile(link="adb")).__enter__()
