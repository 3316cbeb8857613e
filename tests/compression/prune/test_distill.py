"""The unpruned model as a teacher."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

keras = pytest.importorskip("keras")
pytest.importorskip("tensorflow")

from conftest import QUICK_BENCH, tiny_recipe  # noqa: E402
from edgeheads.compression.prune.alone import prune_alone  # noqa: E402
from edgeheads.compression.prune.distill import (  # noqa: E402
    DistillationLoss,
    teach,
    unexplained,
)
from edgeheads.edge_model import build, layer_prefix  # noqa: E402
from edgeheads.errors import EdgeheadsError  # noqa: E402
from edgeheads.progress import SilentProgress  # noqa: E402
from edgeheads.tasks import get_task  # noqa: E402
from edgeheads.train import prepare_training, read_training_data  # noqa: E402
from edgeheads.training.distribution import Distribution  # noqa: E402

L = keras.layers


def array(*values: float) -> Any:
    return np.array(values, np.float32)


def test_the_distance_by_hand() -> None:
    # The teacher's variance is 1, and the squares of the differences are 0, 0, 4 and 0.
    teacher = {"a": array(1, -1, 1, -1)}
    assert float(unexplained(teacher, {"a": array(1, -1, -1, -1)})) == pytest.approx(1.0)
    assert float(unexplained(teacher, {"a": array(0, 0, 0, 0)})) == pytest.approx(1.0)
    assert float(unexplained(teacher, teacher)) == 0.0
    # Ten times the unit is the same distance; 9 / 4 in "b", and the mean of both is taken.
    teacher = {"a": array(10, -10, 10, -10), "b": array(2, -2)}
    taught = {"a": array(10, -10, -10, -10), "b": array(5, 1)}
    assert float(unexplained(teacher, taught)) == pytest.approx((1 + 9 / 4) / 2)
    # Nothing is divided by the spread of an output that has none.
    assert np.isfinite(float(unexplained({"a": array(3, 3)}, {"a": array(3, 3.001)})))


def test_the_loss_by_hand_and_the_variables_of_the_tasks_own() -> None:
    class Learned(keras.layers.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.factor = self.add_weight(shape=(), initializer="ones", name="factor")
            self.built = True

        def call(self, targets: Any, outputs: Any) -> Any:
            return self.factor * keras.ops.mean(keras.ops.abs(targets["y"] - outputs["y"]))

    loss = DistillationLoss(Learned(), 0.5)
    value = loss(
        {"task": {"y": array(2, 4)}, "teacher": {"code": array(1, -1)}},
        {"task": {"y": array(1, 1)}, "taught": {"code": array(0, 0)}},
    )
    assert float(value) == pytest.approx(2 + 0.5 * 1)
    assert len(loss.trainable_variables) == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["depth", "multi-task"])
def test_a_copy_has_nothing_to_learn_and_the_teacher_stays(name: str) -> None:
    options: dict[str, Any] = {"hidden_dim": 16}
    if name == "multi-task":
        options["task_configs"] = {
            "segmentation": {},
            "depth": {"min_depth": 0.4, "max_depth": 10.0},
        }
    else:
        options |= {"min_depth": 0.4, "max_depth": 10.0}
    recipe = tiny_recipe(**{"task": name, "head.options": options})
    task = get_task(recipe.task, recipe.head.options)
    data = read_training_data(recipe, task, SilentProgress())
    keras.utils.set_random_seed(0)
    teacher = build(recipe, task, data.names)
    copy = keras.models.clone_model(teacher.model)
    copy.set_weights(teacher.model.get_weights())
    outputs, decoding = task.edge_outputs(copy, layer_prefix(task))
    edge = replace(teacher, model=copy, outputs=outputs, decoding=decoding)
    training = prepare_training(edge, recipe, task, data, Distribution())
    plain = training.batches[1]
    teach(training, edge, teacher, 2.0)

    images, targets = training.batches[1]
    np.testing.assert_array_equal(images, plain[0])
    assert set(targets["teacher"]) == set(teacher.outputs)
    assert training.called is not None
    found = training.called(images, training=False)
    assert float(unexplained(targets["teacher"], found["taught"])) == pytest.approx(0, abs=1e-6)
    assert set(targets["task"]) == set(plain[1])

    before = [np.array(one) for one in teacher.model.get_weights()]
    history = training.run()
    assert len(history.losses) == recipe.training.steps
    assert np.isfinite(history.losses).all()
    for old, new in zip(before, teacher.model.get_weights(), strict=True):
        np.testing.assert_array_equal(new, old)
    assert any((old != new).any() for old, new in zip(before, copy.get_weights(), strict=True))
    assert len(copy.layers) == len(teacher.model.layers)


@pytest.mark.slow
def test_a_teacher_brings_back_what_wrong_labels_do_not(tmp_path: Path) -> None:
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 3))
    x = L.ReLU()(L.Conv2D(32, 3, strides=2)(image))
    x = L.GlobalAveragePooling2D()(L.ReLU()(L.Conv2D(32, 3)(x)))
    model = keras.Model(image, L.Dense(2)(x))
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(100, 8, 8, 3)).astype(np.float32)
    said = model.predict(inputs, verbose=0)
    # The labels of what is trained on are as good as none.
    labels = said + rng.normal(scale=3 * said.std(), size=said.shape)
    labels[80:] = said[80:]
    model.save(tmp_path / "net.keras")
    np.savez(tmp_path / "data.npz", x=inputs, y=labels)
    errors = []
    for weight in (0, 100):
        result = prune_alone(
            tmp_path / "net.keras",
            tmp_path / f"out-{weight}",
            {"target": "macs=0.5", "recover_steps": 100, "recover_rate": 5, "distill": weight},
            data=str(tmp_path / "data.npz"),
            bench_settings=QUICK_BENCH,
        )
        errors.append(result.report.stages[-1].metrics["mse"])
    assert errors[1] < 0.5 * errors[0]
    loaded = keras.saving.load_model(result.model_path)
    assert [tuple(one.shape) for one in loaded.outputs] == [(None, 2)]
    assert not loaded.compiled


def test_the_weight_is_checked() -> None:
    with pytest.raises(EdgeheadsError, match=r"prune.distill: .* greater than or equal to 0"):
        tiny_recipe(**{"prune.distill": -1})


@pytest.mark.slow
def test_a_pruned_model_loads_without_edgeheads(tmp_path: Path) -> None:
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 3))
    x = L.GlobalAveragePooling2D()(L.ReLU()(L.Conv2D(32, 3)(image)))
    keras.Model(image, L.Dense(2)(x)).save(tmp_path / "net.keras")
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "data.npz", x=rng.normal(size=(20, 8, 8, 3)), y=np.arange(20) % 2)
    result = prune_alone(
        tmp_path / "net.keras",
        tmp_path / "out",
        {"target": "macs=0.6", "recover_steps": 2},
        data=str(tmp_path / "data.npz"),
        bench_settings=QUICK_BENCH,
    )
    ones = np.ones((1, 8, 8, 3), np.float32)
    expected = keras.saving.load_model(result.model_path).predict(ones, verbose=0)
    code = (
        "import sys; sys.modules['edgeheads'] = None\n"
        "import keras, numpy as np\n"
        f"model = keras.saving.load_model({str(result.model_path)!r})\n"
        "print('said', *model.predict(np.ones((1, 8, 8, 3), 'float32'), verbose=0)[0])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-500:]
    said = next(line for line in done.stdout.splitlines() if line.startswith("said"))
    np.testing.assert_allclose([float(one) for one in said.split()[1:]], expected[0], rtol=1e-4)
