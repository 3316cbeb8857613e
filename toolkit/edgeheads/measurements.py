"""Where measurements of a Bundle lie: one file per kind and device."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgeheads.bundle import Bundle
from edgeheads.device import DeviceProfile
from edgeheads.errors import CheckFailedError

__all__ = [
    "HOST",
    "device_label",
    "measurement_name",
    "read_measurements",
    "require_verified_file",
]

HOST = "host"
"""The label of this machine."""

# What measures each kind, for advice.
_COMMANDS = {
    "benchmark": "bench",
    "sustained": "bench --sustained 10",
    "op_profile": "bench --profile-ops",
    "evaluation": "evaluate",
    "verification": "verify",
}


def device_label(profile: DeviceProfile) -> str:
    """Return the profile's name, with the device's address where it has one; never the user's."""
    address = profile.host.rpartition("@")[2] or profile.serial
    return f"{profile.name}@{address}" if address else profile.name


def measurement_name(kind: str, label: str) -> str:
    """Return the name that `Bundle.save_measurement` stores a device's measurement under.

    Args:
        kind: "benchmark", "sustained", "op_profile" or "evaluation".
        label: of the device, from `device_label`.
    """
    return kind if label == HOST else f"{kind}-{re.sub(r'[^A-Za-z0-9_.@+-]', '_', label)}"


def read_measurements(
    bundle: Bundle,
    kind: str,
    *,
    keys: Sequence[str] = (),
    left_out: list[str] | None = None,
) -> dict[str, dict[str, Any]]:
    """Return {label: content} of one kind of measurement on every device, this machine first.

    Args:
        bundle: whose.
        kind: "benchmark", "sustained", "op_profile", "evaluation" or "verification".
        keys: without which, or with nothing in which, a file is damaged.
        left_out: takes a sentence on each file that cannot be used, so that the other devices'
            are returned.

    Raises:
        CheckFailedError: without `left_out`: a file measured another model, or is damaged.
    """
    plain = bundle.folder / f"{kind}.json"
    others = sorted(bundle.folder.glob(f"{kind}-*.json"))
    found = {}
    for path in [*([plain] if plain.is_file() else []), *others]:
        try:
            content = _read(path, bundle, kind, keys)
        except CheckFailedError as error:
            if left_out is None:
                raise
            left_out.append(str(error))
            continue
        found[content.get("label") or content.get("device") or HOST] = content
    return found


def _read(path: Path, bundle: Bundle, kind: str, keys: Sequence[str]) -> dict[str, Any]:
    again = f"measure again: edgeheads {_COMMANDS[kind]} {bundle.folder}"
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        measured = content["model_sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckFailedError(
            f"{path} is not a measurement ({type(error).__name__}: {error}); remove it, and {again}"
        ) from None
    if measured != bundle.sha256:
        raise CheckFailedError(
            f"{path} is of another file (SHA-256 {str(measured)[:12]}...) than "
            f"{bundle.model_path} ({bundle.sha256[:12]}...); measure this one: edgeheads "
            f"{_COMMANDS[kind]} {bundle.folder}"
        )
    if missing := [key for key in keys if not content.get(key)]:
        raise CheckFailedError(f"{path} has no {', '.join(missing)}; {again}")
    return content


def require_verified_file(bundle: Bundle) -> None:
    """Refuse a Bundle whose verification is of another file: it was changed since.

    A Bundle that was never verified passes.

    Raises:
        CheckFailedError: see above.
    """
    read_measurements(bundle, "verification")
