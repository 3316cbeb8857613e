"""The link to an Android device, by the Android Debug Bridge."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from edgeheads.errors import EdgeheadsError
from edgeheads.links.shell import ShellLink

if TYPE_CHECKING:
    from edgeheads.device import DeviceProfile

__all__ = ["TERMUX", "AdbLink"]

# Termux keeps Python where only its own user may read; run-as becomes that user, with none of
# the environment that Termux' programs expect.
_TERMUX_FILES = "/data/data/com.termux/files"
TERMUX = (
    "run-as",
    "com.termux",
    "env",
    f"PREFIX={_TERMUX_FILES}/usr",
    f"HOME={_TERMUX_FILES}/home",
    f"TMPDIR={_TERMUX_FILES}/usr/tmp",
    f"LD_LIBRARY_PATH={_TERMUX_FILES}/usr/lib",
    f"PATH={_TERMUX_FILES}/usr/bin:/system/bin",
)

# What adb says, as a pattern, and what it means to a user. The first one counts.
_ADVICE = (
    (
        "no devices/emulators found",
        "no device is connected; plug it in, turn USB debugging on, and see: adb devices",
    ),
    (
        "more than one device",
        "several devices are connected; say which, --serial SERIAL, from: adb devices",
    ),
    (
        "device .* not found|no such device|device '.*' not found",
        "no device of this serial is connected; the ones that are: adb devices",
    ),
    ("unauthorized", "it does not trust this machine yet; confirm the question on its screen"),
    ("offline", "it is offline; plug it in again, then run: adb reconnect"),
    (
        "run-as: .*(unknown package|not installed)|Package .* is unknown",
        "it has no Termux; install Termux from F-Droid and Python in it (pkg install python), or "
        "name a benchmark_model binary in a profile of your own",
    ),
    (
        "run-as: .*not debuggable|not an application",
        "its Termux cannot be entered over adb; install the build of F-Droid, or reach Termux' own "
        "SSH server with a profile of your own (link: ssh)",
    ),
    (
        "cannot connect to daemon|failed to start daemon",
        "the adb server on this machine does not start; run: adb start-server",
    ),
)


class AdbLink(ShellLink):
    """Runs commands on an Android device: in Termux, or as the debugging user without it.

    Args:
        serial: of the device, as `adb devices` prints it; empty takes the only one.
        python: see `ShellLink`.
        venv: see `ShellLink`.
        in_termux: become Termux' user, whose Python then runs.
    """

    def __init__(
        self, serial: str = "", python: str = "", venv: str = "", in_termux: bool = True
    ) -> None:
        super().__init__(python, venv)
        if serial.startswith("-") or re.search(r"[^\w.:%@\[\]-]", serial):
            raise EdgeheadsError(
                f"a serial must be as `adb devices` prints it, received {serial!r}"
            )
        self._serial = serial
        self._in_termux = in_termux

    @classmethod
    def from_profile(cls, profile: DeviceProfile) -> AdbLink:
        """Return the link to the profile's serial. Termux is left out for a benchmark binary."""
        in_termux = not profile.benchmark_model
        link = cls(profile.serial, profile.python, profile.venv, in_termux)
        serial = f" --serial {profile.serial}" if profile.serial else ""
        link.setup_command = f"edgeheads devices setup {profile.name}{serial}"
        return link

    def describe(self) -> str:
        """Return the serial."""
        return f"Android device {self._serial}" if self._serial else "the Android device"

    def _prefix(self) -> list[str]:
        return list(TERMUX) if self._in_termux else []

    def _client(self, command: str, *, is_guard: bool) -> list[str]:
        serial = ["-s", self._serial] if self._serial else []
        # Without a terminal: it would turn line ends over, and mix errors with the output.
        return ["adb", *serial, "shell", "-T", command]

    def _reason(self, words: str) -> str:
        for sign, advice in _ADVICE:
            if re.search(sign, words):
                return advice
        lines = [line for line in words.strip().splitlines() if not line.startswith("* daemon")]
        return f"adb says: {lines[-1] if lines else 'no answer'}; try: adb devices -l"
