"""Scoring on a device: the link drops in the middle, and nothing that was computed is lost."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeheads import evaluate as module
from edgeheads.bundle import Bundle
from edgeheads.device import DeviceProfile
from edgeheads.errors import CheckFailedError, RuntimeFailureError
from edgeheads.evaluate import evaluate
from edgeheads.links.base import RunResult
from edgeheads.links.local import LocalLink
from edgeheads.predictions import PredictionStore
from edgeheads.runtime import DeviceSession

PI = DeviceProfile(name="pi")


class DroppingLink(LocalLink):
    """Is lost at the prediction of this number, counted from 1."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self._left = at

    def run(self, argv: list[str], timeout_seconds: float) -> RunResult:
        request = json.loads((self.folder / "request.json").read_text())
        self._left -= request["action"] == "predict"
        if self._left == 0:
            raise RuntimeFailureError("the connection was lost")
        return super().run(argv, timeout_seconds)


@pytest.fixture
def bundle(converted: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "_CHUNK", 1)
    return Bundle(shutil.copytree(converted.bundles["int8"].folder, tmp_path / "b"))


def test_a_lost_connection_costs_one_chunk(bundle: Bundle, tmp_path: Path) -> None:
    # The golden images are the first prediction, the three samples the next.
    with (
        DeviceSession(PI, link=DroppingLink(at=4)) as session,
        pytest.raises(RuntimeFailureError, match="predictions of 2 of 3 images are kept"),
    ):
        evaluate(bundle, session, resume=True, on_host=False)
    assert not (bundle.folder / "evaluation-pi.json").exists()
    assert len(list((tmp_path / "cache").rglob("*.npz"))) == 2
    # Golden and one more: the third prediction would be lost.
    with DeviceSession(PI, link=DroppingLink(at=3)) as session:
        result = evaluate(bundle, session, resume=True, on_host=False)
    assert result["resumed_images"] == 2
    assert not list((tmp_path / "cache").rglob("*.npz"))
    with DeviceSession() as session:
        whole = evaluate(bundle, session)
    assert whole["metrics"] == result["metrics"]
    assert whole["data_sha256"] == result["data_sha256"]


def test_stages_and_drops(bundle: Bundle) -> None:
    with DeviceSession(PI, link=LocalLink()) as session:
        result = evaluate(bundle, session)
    stages = result["accuracy_stages"]
    assert [one["stage"] for one in stages] == ["keras-float", "tflite-host", "tflite-device"]
    assert [one["label"] for one in stages] == ["host", "host", "pi"]
    assert stages[0]["drops"] is None
    assert stages[1]["drops"]["delta1"] == pytest.approx(
        stages[0]["metrics"]["delta1"] - stages[1]["metrics"]["delta1"]
    )
    assert set(stages[2]["drops"].values()) == {0.0}
    assert result["golden"]["passed"] is True
    assert (bundle.folder / "evaluation.json").is_file()
    stored = json.loads((bundle.folder / "evaluation-pi.json").read_text())
    assert stored["model_sha256"] == bundle.sha256
    assert stored["accuracy_stages"] == stages


def test_float_scores_of_other_data_are_left_out(bundle: Bundle) -> None:
    scores = bundle.read_measurement("float_evaluation")
    assert scores is not None
    bundle.save_measurement("float_evaluation", {**scores, "data_sha256": "0" * 64})
    with DeviceSession() as session:
        result = evaluate(bundle, session)
    assert [one["stage"] for one in result["accuracy_stages"]] == ["tflite-host"]


def test_a_device_that_computes_something_else(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = DeviceSession.predict

    def wrong(self: DeviceSession, *arguments: Any) -> dict[str, Any]:
        return {name: array[::-1] for name, array in whole(self, *arguments).items()}

    monkeypatch.setattr(DeviceSession, "predict", wrong)
    with DeviceSession(PI, link=LocalLink()) as session:
        with pytest.raises(CheckFailedError, match="pi does not repeat the golden outputs"):
            evaluate(bundle, session, on_host=False)
        result = evaluate(bundle, session, on_host=False, require_golden=False)
    assert result["golden"]["passed"] is False


def test_kept_predictions_are_of_one_setup_and_one_input(tmp_path: Path) -> None:
    inputs = {"image": np.zeros((2, 3), np.int8)}
    outputs = {"a": np.arange(2)}
    store = PredictionStore(tmp_path / "s", {"runtime": "1"})
    assert store.find(inputs) is None
    store.keep(inputs, outputs)
    np.testing.assert_array_equal(store.find(inputs)["a"], outputs["a"])  # type: ignore[index]
    assert (store.kept_images, store.found_images) == (2, 2)
    assert store.find({"image": np.ones((2, 3), np.int8)}) is None
    assert PredictionStore(tmp_path / "s", {"runtime": "2"}).find(inputs) is None
    [path] = (tmp_path / "s").iterdir()
    path.write_bytes(path.read_bytes()[:20])
    assert store.find(inputs) is None
    store.clear()
    assert not (tmp_path / "s").exists()
