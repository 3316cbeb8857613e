"""Options that several commands share, and the device they choose."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import click

from edgeheads.device import DeviceProfile, load_device
from edgeheads.errors import EdgeheadsError

__all__ = ["chosen_device", "device_options", "json_option", "parse_size"]

_Command = Callable[..., Any]


def device_options(command: _Command) -> _Command:
    """Add --device and --threads."""
    command = click.option(
        "--threads", type=click.IntRange(1, 256), help="Of the interpreter [default: the device's]."
    )(command)
    return click.option(
        "--device", metavar="NAME|FILE", help="Device profile [default: this machine]."
    )(command)


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")


def chosen_device(device: str | None, threads: int | None) -> DeviceProfile:
    """Return the profile that the options name.

    Without --device no file is read: the defaults of a profile are this machine, and a device
    needs no YAML reader to measure itself.
    """
    profile = load_device(device) if device else DeviceProfile()
    return replace(profile, threads=threads) if threads else profile


def parse_size(text: str) -> tuple[int, int]:
    """Return (height, width) of "128" or "192x256"."""
    sides = text.lower().split("x")
    if len(sides) not in (1, 2) or not all(side.isdecimal() for side in sides):
        raise EdgeheadsError(f"--input-size must be like 128 or 192x256, received {text!r}")
    return int(sides[0]), int(sides[-1])
