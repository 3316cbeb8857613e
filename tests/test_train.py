"""From a recipe to a trained model, with everything a recipe can ask of the training."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

keras = pytest.importorskip("keras")
pytest.importorskip("pydantic")

from conftest import tiny_recipe  # noqa: E402
from edgeheads.errors import EdgeheadsError  # noqa: E402
from edgeheads.progress import SilentProgress  # noqa: E402
from edgeheads.tasks import get_task  # noqa: E402
from edgeheads.train import read_training_data, set_up_backend, train  # noqa: E402
from edgeheads.training.run import RunOptions, TrainResult, train_and_log  # noqa: E402

VALIDATED = {
    "data.train_samples": 16,
    "training.validation_fraction": 0.25,
    "training.validations": 5,
    "training.steps": 10,
}


def trained_weights(folder: Path, **changes: Any) -> list[np.ndarray]:
    recipe = tiny_recipe(**changes)
    task = get_task(recipe.task, recipe.head.options)
    set_up_backend(recipe.seed)
    data = read_training_data(recipe, task, SilentProgress())
    folder.mkdir(exist_ok=True)
    return train(recipe, task, data, folder, SilentProgress()).model.get_weights()


def distance(one: list[np.ndarray], other: list[np.ndarray]) -> float:
    """The norm of the difference as a share of the norm."""
    a, b = (np.concatenate([array.ravel() for array in arrays]) for arrays in (one, other))
    return float(np.linalg.norm(a - b) / np.linalg.norm(a))


@pytest.fixture(scope="module")
def validated(tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    folder = tmp_path_factory.mktemp("validated") / "run"
    return train_and_log(tiny_recipe(**VALIDATED), folder)


def test_a_run_leaves_model_recipe_and_logs(validated: TrainResult) -> None:
    names = sorted(path.name for path in validated.folder.iterdir())
    assert names == ["curves.png", "model.keras", "recipe.yaml", "training.csv"]
    assert validated.samples[0] + validated.samples[1] == 16
    assert validated.samples[1] > 0
    assert validated.history.step == 10
    assert validated.images_per_second == pytest.approx(4 / validated.seconds_per_step)


def test_the_csv_has_the_validations(validated: TrainResult) -> None:
    with (validated.folder / "training.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows if row["abs_rel"]] == ["2", "4", "6", "8", "10"]
    for row, validation in zip(
        [row for row in rows if row["abs_rel"]], validated.history.validations, strict=True
    ):
        assert float(row["abs_rel"]) == validation.metrics["abs_rel"]


def test_the_best_validated_weights_are_saved(
    validated: TrainResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a judge that likes the second of five validations best, the model is that of step 4."""
    from edgeheads.training import validation

    seen: list[list[np.ndarray]] = []
    values = iter([0.5, 0.1, 0.3, 0.2, 0.4])

    def judge(self: validation.Validator) -> dict[str, float]:
        seen.append([np.array(one) for one in self._edge.model.get_weights()])
        return {"abs_rel": next(values)}

    monkeypatch.setattr(validation.Validator, "__call__", judge)
    result = train_and_log(tiny_recipe(**VALIDATED), tmp_path / "run")
    assert result.history.best == 1
    saved = keras.saving.load_model(result.model_path, compile=False).get_weights()
    for one, expected, last in zip(saved, seen[1], seen[4], strict=True):
        np.testing.assert_array_equal(one, expected)
        assert (expected != last).any()


def test_patience_ends_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Validations after 2, 4, 6, 8, 10: two without a better value have passed after 8."""
    from edgeheads.training import validation

    values = iter([0.5, 0.2, 0.3, 0.2, 0.1])
    monkeypatch.setattr(validation.Validator, "__call__", lambda self: {"abs_rel": next(values)})
    recipe = tiny_recipe(**VALIDATED, **{"training.patience": 2})
    result = train_and_log(recipe, tmp_path / "run")
    assert result.history.stopped
    assert result.history.step == 8
    assert result.history.best == 1


def test_patience_without_validation_is_refused() -> None:
    with pytest.raises(EdgeheadsError, match="set validation_fraction above 0, or patience to 0"):
        tiny_recipe(**{"training.patience": 2})


@pytest.mark.slow
def test_mixed_precision_learns_much_the_same_and_saves_float32(tmp_path: Path) -> None:
    plain = trained_weights(tmp_path / "plain")
    mixed = trained_weights(tmp_path / "mixed", **{"training.precision": "mixed_bfloat16"})
    assert 0 < distance(plain, mixed) < 0.05
    saved = keras.saving.load_model(tmp_path / "mixed" / "model.keras", compile=False)
    assert {layer.dtype_policy.name for layer in saved.layers} == {"float32"}
    assert keras.config.dtype_policy().name == "float32"


@pytest.mark.slow
def test_float16_scales_its_loss(tmp_path: Path) -> None:
    half = trained_weights(tmp_path / "half", **{"training.precision": "mixed_float16"})
    plain = trained_weights(tmp_path / "plain")
    assert all(np.isfinite(one).all() for one in half)
    assert 0 < distance(plain, half) < 0.05


@pytest.mark.slow
def test_recomputing_the_head_gives_the_same_flat_model(tmp_path: Path) -> None:
    plain = trained_weights(tmp_path / "plain")
    thrifty = trained_weights(tmp_path / "thrifty", **{"training.recompute": True})
    for one, other in zip(plain, thrifty, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)
    names = [
        [layer.name for layer in keras.saving.load_model(path, compile=False).layers]
        for path in (tmp_path / "plain" / "model.keras", tmp_path / "thrifty" / "model.keras")
    ]
    assert any(name.startswith("depth_") for name in names[1])
    assert len(names[0]) == len(names[1])


def test_tensorboard_gets_the_rows(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    pytest.importorskip("tensorflow")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from edgeheads.training.tensorboard import TensorBoard

    board = TensorBoard(tmp_path)
    board.write([{"step": 1, "loss": 3.0}])
    board.write([{"step": 1, "loss": 3.0}, {"step": 2, "loss": 2.0, "abs_rel": 0.5}])
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert [event.step for event in events.Tensors("loss")] == [1, 2]
    assert [event.step for event in events.Tensors("abs_rel")] == [2]


def test_a_single_step_has_no_speed(tmp_path: Path) -> None:
    result = train_and_log(
        tiny_recipe(**{"training.steps": 1}), tmp_path / "run", RunOptions(checkpoint_seconds=0.0)
    )
    assert (result.seconds_per_step, result.images_per_second) == (0.0, 0.0)
    assert not (tmp_path / "run" / "checkpoint").exists()
