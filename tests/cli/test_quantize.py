"""`edgeheads quantize`, in a process of its own."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from commands import run

keras = pytest.importorskip("keras")
pytest.importorskip("tensorflow")

from edgeheads.cli.console import counted  # noqa: E402
from edgeheads.cli.quantize import _print_findings  # noqa: E402
from edgeheads.compression.quantize.doctor import DoctorReport  # noqa: E402

TINY = Path(__file__).parent / "tiny.yaml"


def _model(folder: Path) -> Path:
    image = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(8, 3, activation="relu")(image)
    keras.Model(image, keras.layers.Conv2D(4, 1)(x)).save(folder / "net.keras")
    np.savez(folder / "x.npz", x=np.random.default_rng(0).random((4, 16, 16, 3)))
    return folder / "net.keras"


def test_a_plain_model_with_arrays(tmp_path: Path) -> None:
    model = _model(tmp_path)
    done = run("quantize", model, "--data", tmp_path / "x.npz", "--compare")
    assert done.returncode == 0, done.stderr
    assert "Calibration: 4 images" in done.stdout
    assert "  warning  count: 4 different images" in done.stdout
    assert "plain converter" in done.stdout
    assert done.stdout.splitlines()[-1] == f"Wrote {tmp_path / 'net.int8.tflite'}"
    assert "INFO" not in done.stderr
    assert sorted(one.name for one in tmp_path.iterdir()) == [
        "net.int8.tflite",
        "net.keras",
        "x.npz",
    ]


@pytest.mark.slow
def test_the_doctor_alone_fails_where_no_file_can_be_made(tmp_path: Path) -> None:
    model = _model(tmp_path)
    np.savez(tmp_path / "x.npz", x=np.full((4, 16, 16, 3), np.nan))
    done = run("quantize", model, "--data", tmp_path / "x.npz", "--doctor")
    assert done.returncode == 1
    assert "  error    NaN: 4 of 4 images hold NaN or infinite values" in done.stdout
    last = done.stderr.splitlines()[-1]
    assert last.endswith(": 1 error in the calibration images; no file can be made")
    done = run("quantize", model, "--data", tmp_path / "x.npz", "--json")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("edgeheads: calibration images, NaN: 4 of 4 images hold NaN")


@pytest.mark.slow
def test_a_run_calibrates_with_what_it_was_trained_on(tmp_path: Path) -> None:
    run("train", "--recipe", TINY, "--out", tmp_path / "run")
    done = run("quantize", tmp_path / "run", "--metric", "--scheme", "int8-float-io", "--json")
    assert done.returncode == 0, done.stderr
    content = json.loads(done.stdout)
    assert content["metric"] == "abs_rel"
    assert content["files"]["float32"]["metric_drop"] == pytest.approx(0, abs=1e-3)
    assert content["files"]["int8-float-io"]["sqnr_db"] > 10
    assert (tmp_path / "run" / "model.int8-float-io.tflite").is_file()


def test_what_the_options_say_is_checked_first(tmp_path: Path) -> None:
    for arguments, message in (
        (["--metric"], "--metric needs labels, which a recipe names: add --recipe"),
        (["--recipe", TINY, "--scaling", "unit"], "--scaling unit is for a model without a recipe"),
        (["--recipe", "no-such"], "unknown recipe 'no-such'"),
    ):
        done = run("quantize", tmp_path / "net.keras", *arguments)
        assert done.returncode == 2
        assert message in done.stderr
        assert "Starting TensorFlow" not in done.stderr


def test_one_is_not_called_many(capsys: pytest.CaptureFixture[str]) -> None:
    _print_findings(DoctorReport(1, ()))
    _print_findings(DoctorReport(0, ()))
    assert capsys.readouterr().out == "Calibration: 1 image\nCalibration: 0 images\n"
    assert counted(1, "error") == "1 error"
    assert counted(1200, "error") == "1,200 errors"
