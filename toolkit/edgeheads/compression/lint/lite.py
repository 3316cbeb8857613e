"""Linting a .tflite file by the rules that a device's maker publishes, without TensorFlow."""

from __future__ import annotations

from pathlib import Path

from edgeheads.compression.lint.finding import Finding
from edgeheads.device import DeviceProfile, list_devices, load_device
from edgeheads.errors import EdgeheadsError
from edgeheads.targets.graph import read_operations
from edgeheads.targets.rules import load_rules, place

__all__ = ["lint_lite"]


def lint_lite(file: Path, device: DeviceProfile | None) -> list[Finding]:
    """Return the operations of a file that a device leaves to its CPU, in the order they run.

    Raises:
        EdgeheadsError: no device, or one without rules; the file is not a complete .tflite file.
    """
    if device is None or not device.op_rules:
        known = [name for name in list_devices() if load_device(name).op_rules]
        received = f"{device.name}, which has none" if device else "no --device"
        raise EdgeheadsError(
            f"a .tflite file is linted by the rules of a device, received {received}; choose "
            f"--device {', '.join(known)}, or lint the .keras file it was made from"
        )
    if not file.is_file():
        raise EdgeheadsError(f"model {file} does not exist; give a Bundle, .tflite or .keras file")
    rules = load_rules(device.op_rules)
    return [
        Finding(
            "device-operation",
            "warning",
            f"operation {one.index}",
            one.op,
            one.reason,
            "every change between accelerator and CPU copies the tensor, and the CPU's part is "
            "slow",
            f"an operation within the limits of {rules.source}",
        )
        for one in place(read_operations(file), rules)
        if not one.is_mapped
    ]
