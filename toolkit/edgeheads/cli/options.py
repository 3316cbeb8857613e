"""Options that several commands share, and the device they choose."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import click

from edgeheads.device import DeviceProfile, load_device
from edgeheads.errors import EdgeheadsError

__all__ = [
    "chosen_device",
    "chosen_devices",
    "device_options",
    "devices_options",
    "json_option",
    "link_options",
    "parse_size",
]

_Command = Callable[..., Any]


def device_options(command: _Command) -> _Command:
    """Add --device and --threads: `device`, `threads`, for `chosen_device`."""
    command = click.option(
        "--threads", type=click.IntRange(1, 256), help="Of the interpreter [default: the device's]."
    )(command)
    return click.option(
        "--device", metavar="NAME|FILE", help="Device profile [default: this machine]."
    )(command)


def link_options(command: _Command) -> _Command:
    """Add --host, --serial and --python: where the device is. For `chosen_device`, too."""
    for name, metavar, text in (
        ("--python", "COMMAND", "Starts Python there [default: its set-up one, or python3]."),
        ("--serial", "SERIAL", "Of an Android device, as adb prints it."),
        ("--host", "USER@HOST[:PORT]", "Of a device behind SSH, or its name in ~/.ssh/config."),
    ):
        command = click.option(name, metavar=metavar, help=text)(command)
    return command


def devices_options(command: _Command) -> _Command:
    """Add --device, --host and --serial, each repeatable, and --python.

    The command receives `devices`, `hosts`, `serials` and `python`, for `chosen_devices`.
    """
    command = click.option(
        "--python",
        metavar="COMMAND",
        help="Starts Python on the devices [default: their set-up one, or python3].",
    )(command)
    for name, variable, metavar, text in (
        ("--serial", "serials", "SERIAL", "Of the Android devices, in the order of --device."),
        ("--host", "hosts", "USER@HOST[:PORT]", "Of the SSH devices, in the order of --device."),
        ("--device", "devices", "NAME|FILE", "Device profile; repeatable [default: this machine]."),
    ):
        command = click.option(name, variable, metavar=metavar, multiple=True, help=text)(command)
    return command


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")


def chosen_device(
    device: str | None,
    threads: int | None,
    host: str | None = None,
    serial: str | None = None,
    python: str | None = None,
) -> DeviceProfile:
    """Return the profile that the options name; `edgeheads.links.open_link` leads to it.

    Without --device no file is read: the defaults of a profile are this machine, and a device
    needs no YAML reader to measure itself. A --host alone is any machine behind SSH.

    Raises:
        EdgeheadsError: no such profile, or an address that its link has no use for.
    """
    return chosen_devices(
        [device] if device else [],
        threads,
        [host] if host else [],
        [serial] if serial else [],
        python,
    )[0]


def chosen_devices(
    devices: Sequence[str],
    threads: int | None = None,
    hosts: Sequence[str] = (),
    serials: Sequence[str] = (),
    python: str | None = None,
) -> list[DeviceProfile]:
    """Return the profiles that the options name, with their addresses.

    The first --host belongs to the first device that is reached over SSH, and so on; so it is
    with --serial and Android. A device's own profile may hold its address instead, if none is
    given on the command line.

    Raises:
        EdgeheadsError: no such profile, or the addresses are not as many as the devices.
    """
    profiles = [load_device(device) for device in devices] or [_default_device(hosts, serials)]
    for option, link, given in (("--host", "ssh", hosts), ("--serial", "adb", serials)):
        places = [
            index
            for index, profile in enumerate(profiles)
            if profile.link == link or (link == "ssh" and _is_movable(profile))
        ]
        if not given:
            continue
        if not places:
            raise EdgeheadsError(
                f"{option} {given[0]} is for a device with link {link}, and "
                f"{', '.join(profile.name for profile in profiles)} has link "
                f"{profiles[0].link}; choose another --device, or leave {option} out"
            )
        if len(given) != len(places):
            raise EdgeheadsError(
                f"{option} must be given once for each of "
                f"{', '.join(profiles[index].name for index in places)}, received "
                f"{len(given)}: {', '.join(given)}"
            )
        for index, address in zip(places, given, strict=True):
            profiles[index] = _with_address(profiles[index], link, address)
    return [_with_options(profile, threads, python) for profile in profiles]


def _default_device(hosts: Sequence[str], serials: Sequence[str]) -> DeviceProfile:
    if serials and not hosts:
        return DeviceProfile(name="android", title="an Android device", link="adb")
    if hosts:
        return DeviceProfile(name="ssh", title="a machine behind SSH", link="ssh")
    return DeviceProfile()


def _with_address(profile: DeviceProfile, link: str, address: str) -> DeviceProfile:
    if link == "ssh":
        return replace(profile, link=link, host=address)
    return replace(profile, link=link, serial=address)


def _is_movable(profile: DeviceProfile) -> bool:
    """Tell whether it is an accelerator, which may be plugged into any machine."""
    return profile.link == "local" and bool(profile.op_rules)


def _with_options(profile: DeviceProfile, threads: int | None, python: str | None) -> DeviceProfile:
    if python and profile.link not in ("ssh", "adb"):
        raise EdgeheadsError(
            f"--python {python} is for a device behind SSH or adb, and {profile.name} is neither; "
            "on this machine, start edgeheads with the Python you want"
        )
    return replace(profile, threads=threads or profile.threads, python=python or profile.python)


def parse_size(text: str) -> tuple[int, int]:
    """Return (height, width) of "128" or "192x256"."""
    sides = text.lower().split("x")
    if len(sides) not in (1, 2) or not all(side.isdecimal() for side in sides):
        raise EdgeheadsError(f"--input-size must be like 128 or 192x256, received {text!r}")
    return int(sides[0]), int(sides[-1])
