"""What a machine says of itself, read from files that a test wrote."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeheads.ondevice import machine


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(machine, "_PI_FIRMWARE", str(tmp_path / "soc"))
    monkeypatch.setattr(machine, "_CPUS", str(tmp_path / "cpu"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return tmp_path


def _write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_raspberry_pi_s_flags(folder: Path) -> None:
    # Bits 0 and 2 are now, 16 and 18 since boot.
    _write(folder / "soc" / "soc:firmware" / "get_throttled", "50005\n")
    assert machine.throttling() == {
        "source": "sysfs get_throttled",
        "now": ["under-voltage", "throttled"],
        "since_boot": ["under-voltage", "throttled"],
        "events": None,
    }


def test_vcgencmd_where_the_kernel_does_not_tell(folder: Path) -> None:
    program = _write(folder / "bin" / "vcgencmd", "#!/bin/sh\necho throttled=0x80000\n")
    program.chmod(0o755)
    found = machine.throttling()
    assert found is not None
    assert (found["source"], found["now"]) == ("vcgencmd get_throttled", [])
    assert found["since_boot"] == ["soft temperature limit"]


def test_thermal_events_are_summed_over_cores(folder: Path) -> None:
    for core, count in (("cpu0", 3), ("cpu1", 4)):
        _write(folder / "cpu" / core / "thermal_throttle" / "core_throttle_count", str(count))
    found = machine.throttling()
    assert found is not None
    assert found["events"] == 7


def test_a_machine_that_tells_nothing(folder: Path) -> None:
    assert machine.throttling() is None


def test_readings_are_apart_by_the_asked_for_time() -> None:
    never, always = machine.Sampler(0), machine.Sampler(1e-9)
    for _ in range(3):
        never()
        always()
    assert never.samples == []
    assert len(always.samples) == 3
    assert set(always.samples[0]) == {"seconds", "frequency_mhz", "temperature_celsius"}
