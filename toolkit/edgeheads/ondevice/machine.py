"""What the machine is, and what makes it slow for a while. What cannot be read is None."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from edgeheads.ondevice.interpreter import Runtime

__all__ = [
    "Sampler",
    "conditions",
    "describe",
    "peak_memory_bytes",
    "proc_status_bytes",
    "since_process_start_ms",
    "throttling",
    "utc_now",
]

_CPUS = "/sys/devices/system/cpu"
# Where a Raspberry Pi's firmware says what it does about heat and voltage.
_PI_FIRMWARE = "/sys/devices/platform/soc"
_PI_FLAGS = {
    0: "under-voltage",
    1: "frequency capped",
    2: "throttled",
    3: "soft temperature limit",
}
_SINCE_BOOT = 16  # the same flags, shifted: whether it happened since the machine was started


def describe(request: Mapping[str, Any], runtime: Runtime) -> dict[str, Any]:
    """Return what this machine is."""
    return {
        "platform": platform.platform(),
        "system": platform.system(),
        "arch": platform.machine(),
        "board": _read_text("/proc/device-tree/model"),
        "cpu_model": _cpu_model(),
        "logical_cores": os.cpu_count(),
        "usable_cores": _usable_cores(),
        "memory_bytes": _memory_bytes(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "import_ms": runtime.import_ms,
        "conditions": conditions(),
    }


def conditions() -> dict[str, Any]:
    """Return the state of the clock, the heat and the load."""
    governors = _read_all(_CPUS, "cpu[0-9]*/cpufreq/scaling_governor")
    limits = _numbers(_read_all(_CPUS, "cpu[0-9]*/cpufreq/scaling_max_freq"))
    try:
        load = os.getloadavg()[0]
    except (AttributeError, OSError):
        load = None
    return {
        "governor": "+".join(sorted(set(governors))) or None,
        "max_frequency_mhz": max(limits) / 1e3 if limits else None,
        **_readings(),
        "load_average_1min": load,
        "throttling": throttling(),
    }


def throttling() -> dict[str, Any] | None:
    """Return what holds the processor back: "now" and "since_boot", lists of names.

    A Raspberry Pi tells what its firmware does; elsewhere Linux counts, on some processors, how
    often heat lowered the clock ("events", since boot).
    """
    bits = _pi_throttled()
    if bits is not None:
        flags, source = bits
        return {
            "source": source,
            "now": [name for bit, name in _PI_FLAGS.items() if flags >> bit & 1],
            "since_boot": [
                name for bit, name in _PI_FLAGS.items() if flags >> (bit + _SINCE_BOOT) & 1
            ],
            "events": None,
        }
    counts = _numbers(_read_all(_CPUS, "cpu[0-9]*/thermal_throttle/core_throttle_count"))
    if not counts:
        return None
    return {"source": "core_throttle_count", "now": [], "since_boot": [], "events": sum(counts)}


class Sampler:
    """Reads clock and heat now and then, between two runs and never during one.

    Args:
        every_seconds: the least time between two readings; 0 reads nothing.
    Attributes:
        samples: {"seconds" since the start, "frequency_mhz", "temperature_celsius"} each.
    """

    def __init__(self, every_seconds: float) -> None:
        self._every_seconds = every_seconds
        self._started = self._next = time.perf_counter()
        self.samples: list[dict[str, Any]] = []

    def __call__(self) -> None:
        """Read, if it is time."""
        now = time.perf_counter()
        if self._every_seconds and now >= self._next:
            self.samples.append({"seconds": round(now - self._started, 3), **_readings()})
            self._next = now + self._every_seconds


def _readings() -> dict[str, Any]:
    kilohertz = _numbers(_read_all(_CPUS, "cpu[0-9]*/cpufreq/scaling_cur_freq"))
    millidegrees = _numbers(_read_all("/sys/class/thermal", "thermal_zone*/temp"))
    return {
        "frequency_mhz": max(kilohertz) / 1e3 if kilohertz else None,
        "temperature_celsius": max(millidegrees) / 1e3 if millidegrees else None,
    }


def _pi_throttled() -> tuple[int, str] | None:
    """Return the firmware's flags and who told them; None where this is no Raspberry Pi."""
    texts = _read_all(_PI_FIRMWARE, "*firmware/get_throttled")
    if texts:
        return _hexadecimal(texts[0], "sysfs get_throttled")
    program = shutil.which("vcgencmd")
    if program is None:
        return None
    try:
        done = subprocess.run(
            [program, "get_throttled"], capture_output=True, text=True, timeout=5, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    # throttled=0x50005
    return _hexadecimal(done.stdout.partition("=")[2], "vcgencmd get_throttled")


def _hexadecimal(text: str, source: str) -> tuple[int, str] | None:
    try:
        return int(text.strip(), 16), source
    except ValueError:
        return None


def since_process_start_ms() -> float | None:
    """Return how long ago the kernel started this process; Linux tells it to 10 ms."""
    stat = _read_text("/proc/self/stat")
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    if stat is None or clock is None:
        return None
    try:
        # The second field is the program's name in parentheses, which may hold spaces itself.
        ticks = int(stat.rpartition(")")[2].split()[19])
        passed = time.clock_gettime(clock) - ticks / os.sysconf("SC_CLK_TCK")
    except (IndexError, OSError, ValueError):
        return None
    # A container may show another clock than the kernel's.
    return round(passed * 1e3, 1) if 0 < passed < 3600 else None


def peak_memory_bytes() -> int | None:
    """Return the largest resident set this process has had.

    Linux hands the parent's peak on to a child's ru_maxrss, so /proc is asked first.
    """
    peak = proc_status_bytes("VmHWM")
    if peak is not None:
        return peak
    try:
        import resource
    except ImportError:
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def proc_status_bytes(field: str) -> int | None:
    """Return a size from /proc/self/status."""
    for line in (_read_text("/proc/self/status") or "").splitlines():
        key, _, value = line.partition(":")
        if key == field:
            return int(value.split()[0]) * 1024
    return None


def utc_now() -> str:
    """Return the time as ISO 8601, to a millisecond."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


def _read_text(path: str | Path) -> str | None:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip("\0\n ") or None
    except OSError:
        return None


def _read_all(folder: str, pattern: str) -> list[str]:
    texts = [_read_text(path) for path in sorted(Path(folder).glob(pattern))]
    return [text for text in texts if text is not None]


def _numbers(texts: list[str]) -> list[int]:
    return [int(text) for text in texts if text.isdigit()]


def _cpu_model() -> str | None:
    for line in (_read_text("/proc/cpuinfo") or "").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.processor() or None


def _usable_cores() -> int | None:
    # Not on every platform, and not known to type checkers where it is missing.
    affinity = getattr(os, "sched_getaffinity", None)
    return None if affinity is None else len(affinity(0))


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None
