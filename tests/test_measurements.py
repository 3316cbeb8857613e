"""Names of measurements, and results of another file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from edgeheads.bundle import Bundle
from edgeheads.device import DeviceProfile
from edgeheads.errors import CheckFailedError
from edgeheads.measurements import (
    device_label,
    measurement_name,
    read_measurements,
    require_verified_file,
)


def test_labels_leave_the_user_out() -> None:
    assert device_label(DeviceProfile()) == "host"
    assert device_label(DeviceProfile(name="pi", link="ssh", host="me@kitchen:22")) == (
        "pi@kitchen:22"
    )
    assert device_label(DeviceProfile(name="phone", link="adb", serial="A1")) == "phone@A1"


def test_names_are_file_names() -> None:
    assert measurement_name("benchmark", "host") == "benchmark"
    assert measurement_name("benchmark", "pi@kitchen:22") == "benchmark-pi@kitchen_22"
    assert measurement_name("benchmark", "../x") == "benchmark-.._x"


@pytest.fixture
def bundle(converted: Any, tmp_path: Path) -> Bundle:
    return Bundle(shutil.copytree(converted.bundles["int8"].folder, tmp_path / "b"))


def test_reading_them_all(bundle: Bundle) -> None:
    bundle.save_measurement("benchmark-pi", {"label": "pi", "device": "pi"})
    assert list(read_measurements(bundle, "benchmark")) == ["host", "pi"]


def test_results_of_another_file(bundle: Bundle) -> None:
    path = bundle.folder / "benchmark-pi.json"
    path.write_text(json.dumps({"model_sha256": "0" * 64}))
    with pytest.raises(CheckFailedError, match=r"is of another file .* edgeheads bench"):
        read_measurements(bundle, "benchmark")
    path.write_text("{")
    with pytest.raises(CheckFailedError, match="is not a measurement"):
        read_measurements(bundle, "benchmark")


def test_one_bad_file_leaves_the_other_devices(bundle: Bundle) -> None:
    (bundle.folder / "benchmark-pi.json").write_text("{")
    left_out: list[str] = []
    found = read_measurements(bundle, "benchmark", keys=["latency_ms"], left_out=left_out)
    assert list(found) == ["host"]
    assert len(left_out) == 1
    assert "benchmark-pi.json is not a measurement" in left_out[0]


def test_a_measurement_without_its_numbers(bundle: Bundle) -> None:
    bundle.save_measurement("benchmark-pi", {"label": "pi", "latency_ms": {}})
    with pytest.raises(CheckFailedError, match=r"benchmark-pi\.json has no latency_ms; measure"):
        read_measurements(bundle, "benchmark", keys=["latency_ms"])


def test_a_bundle_changed_since_it_was_verified(bundle: Bundle) -> None:
    require_verified_file(bundle)
    (bundle.folder / "verification.json").write_text(json.dumps({"model_sha256": "0" * 64}))
    with pytest.raises(CheckFailedError, match="edgeheads verify"):
        require_verified_file(bundle)
