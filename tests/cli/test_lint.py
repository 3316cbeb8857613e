"""`edgeheads lint`, in a process of its own."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from commands import DEVICE_LACKS, run

if TYPE_CHECKING:
    from conftest import TinyModels

keras = pytest.importorskip("keras")
pytest.importorskip("tensorflow")


class Mine(keras.layers.Layer):  # type: ignore[misc]
    """A layer of somebody's own."""

    def call(self, inputs: Any) -> Any:
        return inputs


def saved(file: Path, *stack: Any, size: int | None = 8) -> Path:
    image = keras.Input((size, size, 8))
    x = image
    for layer in stack:
        x = layer(x)
    keras.Model(image, x).save(file)
    return file


@pytest.fixture(scope="module")
def swish(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(
        tmp_path_factory.mktemp("lint") / "model.keras",
        keras.layers.Conv2D(8, 1, name="conv"),
        keras.layers.Activation("hard_swish", name="act"),
        keras.layers.Conv2D(8, 1),
    )


@pytest.mark.slow
def test_a_finding_says_where_why_and_what_instead(swish: Path) -> None:
    """A warning is no failure unless it is asked for."""
    done = run("lint", swish)
    assert done.returncode == 0, done.stderr
    assert "warning: hard-swish (1, --fix)" in done.stdout
    assert "  why:     int8 HARD_SWISH is outside XNNPACK" in done.stdout
    assert "  instead: ReLU6" in done.stdout
    assert "    act (Activation): 8x8x8 values" in done.stdout
    assert "0 error(s), 1 warning(s), 0 note(s)" in done.stdout


def test_fix_writes_a_model_of_which_nothing_is_found(swish: Path, tmp_path: Path) -> None:
    """--fail-on judges what is left; MODEL stays as it is; JSON has both."""
    before = swish.read_bytes()
    fixed = tmp_path / "fixed.keras"
    done = run("lint", swish, "--fix", fixed, "--json", "--fail-on", "warning")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["counts"] == {"error": 0, "warning": 1, "note": 0}
    assert [(one["rule"], one["layer"]) for one in found["findings"]] == [("hard-swish", "act")]
    assert found["fix"]["expanded_hard_swishes"] == 1
    assert found["fix"]["difference"] < 1e-5
    assert found["fix"]["counts_after"]["warning"] == 0
    assert swish.read_bytes() == before
    assert fixed.is_file()


@pytest.mark.slow
def test_fail_on_warning(swish: Path) -> None:
    """Exit code 1, in one line; the findings are printed all the same."""
    done = run("lint", swish, "--fail-on", "warning", "--device", "coral-usb", "--json")
    assert done.returncode == 1
    assert done.stderr.strip().endswith("model.keras found 2 warnings")
    rules = [one["rule"] for one in json.loads(done.stdout)["findings"]]
    assert rules == ["device-operation", "hard-swish"]


@pytest.mark.slow
def test_an_error_fails_by_default(tmp_path: Path) -> None:
    """An open size; --fail-on never lets it pass."""
    file = saved(tmp_path / "open.keras", keras.layers.Conv2D(8, 1), size=None)
    assert run("lint", file).returncode == 1
    assert run("lint", file, "--fail-on", "never").returncode == 0


@pytest.mark.slow
def test_a_custom_layer_is_found_in_a_file_that_does_not_load(tmp_path: Path) -> None:
    """Its code is not here: the file's configuration tells what stands in the way."""
    file = saved(tmp_path / "mine.keras", keras.layers.ReLU(), Mine(name="odd"))
    done = run("lint", file)
    assert done.returncode == 1
    assert "error: custom-layer (1)" in done.stdout
    assert "odd (Mine): " in done.stdout
    assert "the model does not load here" in done.stdout
    refused = run("lint", file, "--fix", tmp_path / "fixed.keras")
    assert refused.returncode == 2
    assert "custom layer(s) odd; replace them by stock layers" in refused.stderr
    assert not (tmp_path / "fixed.keras").exists()


@pytest.mark.parametrize(
    ("name", "text"),
    [("missing.keras", "does not exist"), ("broken.keras", "cannot be loaded")],
)
def test_a_file_that_is_no_model(tmp_path: Path, name: str, text: str) -> None:
    """One line, without a traceback."""
    with zipfile.ZipFile(tmp_path / "broken.keras", "w") as archive:
        archive.writestr("config.json", '{"class_name": 3')
    done = run("lint", tmp_path / name)
    assert done.returncode == 2
    assert text in done.stderr
    assert "Traceback" not in done.stderr


def test_a_tflite_file_by_the_rules_of_a_device(tiny_models: TinyModels) -> None:
    """Without TensorFlow; only YAML is read. What follows on the CPU's part is named."""
    without = DEVICE_LACKS - {"yaml"}
    done = run("lint", tiny_models.split, "--device", "coral-usb", "--json", without=without)
    assert done.returncode == 0, done.stderr
    findings = json.loads(done.stdout)["findings"]
    assert findings[0]["kind"] == "REVERSE_V2"
    assert findings[0]["detail"] == "Edge TPU has no such operation"
    assert "it comes after REVERSE_V2" in findings[1]["detail"]


def test_a_tflite_file_needs_a_device(tiny_models: TinyModels) -> None:
    """The text lists those that have rules; a file cannot be fixed."""
    done = run("lint", tiny_models.int8)
    assert done.returncode == 2
    assert "received no --device; choose --device android-gpu, coral-dev-board" in done.stderr
    done = run("lint", tiny_models.int8, "--device", "raspberry-pi-5")
    assert "received raspberry-pi-5, which has none" in done.stderr
    done = run("lint", tiny_models.int8, "--fix", "x.keras")
    assert done.returncode == 2
    assert "--fix rewrites a .keras or .h5 file" in done.stderr


def test_the_metric_needs_a_rewrite_and_a_recipe(swish: Path, tmp_path: Path) -> None:
    done = run("lint", swish, "--metric")
    assert done.returncode == 2
    assert "--metric compares MODEL with what --fix makes of it: add --fix" in done.stderr
    done = run("lint", swish, "--metric", "--fix", tmp_path / "fixed.keras")
    assert done.returncode == 2
    assert f"there is no {swish.parent / 'recipe.yaml'}; give the folder of" in done.stderr
    assert not (tmp_path / "fixed.keras").exists()


@pytest.mark.slow
def test_a_run_is_scored_and_timed_before_and_after(tmp_path: Path) -> None:
    trained = run("train", "--recipe", Path(__file__).parent / "tiny.yaml", "--out", tmp_path / "r")
    assert trained.returncode == 0, trained.stderr
    fixed = tmp_path / "fixed.keras"
    done = run("lint", tmp_path / "r", "--fix", fixed, "--metric", "--fail-on", "never", "--json")
    assert done.returncode == 0, done.stderr
    effect = json.loads(done.stdout)["effect"]
    assert effect["metric"] == "abs_rel"
    # Folding changes no value that int8 tells apart: the converter folds, too.
    assert effect["after"]["value"] == pytest.approx(effect["before"]["value"], rel=0.05)
    assert effect["before"]["ratio"] == 1
    assert effect["after"]["p50_ms"] > 0
    assert fixed.is_file()
