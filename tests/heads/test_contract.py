"""What every head promises, for every task, preset and input form in the tables."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from head_cases import (
    BATCH,
    FORMS,
    TASKS,
    built_head,
    distance,
    features,
    flat,
    flat_graph,
    loss_and_gradients,
    matrix,
    options,
    symbolic,
)

from edgeheads.heads import create_vision_head
from edgeheads.tasks.task_type import TaskType

every_case = pytest.mark.parametrize(("task", "preset", "form"), matrix())
# What an option of one preset does not change is looked at once per task by default.
one_case_each = pytest.mark.parametrize(("task", "preset", "form"), matrix(per_task=1))

# (height, width) of the finest map of each form, and the cells of all its levels.
_FINEST = {"map": (8, 8), "tokens": (4, 4), "list": (8, 8)}
_CELLS = {"map": 64, "tokens": 16, "list": 64 + 16 + 4}


def _expected(task: TaskType, form: str) -> dict[str, tuple[tuple[int, ...], tuple[float, float]]]:
    """{output: (shape without the batch, (least, greatest value))} for `head_cases.options`."""
    (h, w), cells, free = _FINEST[form], _CELLS[form], (-np.inf, np.inf)
    if task is TaskType.MULTI_TASK:
        return {
            f"{one.value}/{key}": value
            for one in (TaskType.DETECTION, TaskType.SEGMENTATION, TaskType.DEPTH_ESTIMATION)
            for key, value in _expected(one, form).items()
        }
    return {
        TaskType.CLASSIFICATION: {"logits": ((5,), free), "probabilities": ((5,), (0, 1))},
        TaskType.DETECTION: {
            "classifications": ((cells * 2, 3), free),
            "regressions": ((cells * 2, 4), free),
        },
        TaskType.SEGMENTATION: {
            "logits": ((2 * h, 2 * w, 4), free),
            "masks": ((2 * h, 2 * w, 4), (0, 1)),
        },
        TaskType.DEPTH_ESTIMATION: {
            "depth": ((3 * h, 3 * w, 1), (0.5, 20)),
            "confidence": ((3 * h, 3 * w, 1), (0, 1)),
        },
        TaskType.INSTANCE_SEGMENTATION: {
            "classifications": ((cells, 3), free),
            "regressions": ((cells, 4), free),
            "coefficients": ((cells, 5), (-1, 1)),
            "prototypes": ((2 * h, 2 * w, 5), (0, np.inf)),
            "instance_boxes": ((7, 4), (0, 1)),
            "instance_scores": ((7, 3), (0, 1)),
            "instance_masks": ((7, 6, 4), (0, 1)),
        },
        TaskType.KEYPOINT_DETECTION: {
            "heatmaps": ((2 * h, 2 * w, 3), free),
            "offsets": ((2 * h, 2 * w, 6), free),
            "keypoints": ((3, 3), (0, 1)),
        },
        TaskType.SURFACE_NORMALS: {"normals": ((10, 12, 3), (-1, 1))},
        TaskType.ENHANCEMENT: {"image": ((2 * h, 2 * w, 3), (0, 1))},
    }[task]


@every_case
def test_outputs_have_the_keys_shapes_types_and_ranges_of_the_contract(task, preset, form):
    outputs = flat(built_head(task, preset, form)(features(form)))
    expected = _expected(task, form)
    assert set(outputs) == set(expected)
    for key, (shape, (low, high)) in expected.items():
        value = outputs[key]
        assert value.shape == (BATCH, *shape), key
        assert value.dtype == np.float32, key
        assert np.isfinite(value).all(), key
        assert low - 1e-5 <= value.min(), key
        assert value.max() <= high + 1e-4, key
        assert value.std() > 0, f"{key} is one constant"


@every_case
def test_every_variable_gets_a_gradient(task, preset, form):
    head = built_head(task, preset, form)
    _, gradients = loss_and_gradients(head, features(form))
    dead = [
        variable.path
        for variable, gradient in zip(head.trainable_variables, gradients, strict=True)
        if not np.isfinite(gradient).all() or np.abs(gradient).max() == 0
    ]
    assert not dead


@one_case_each
def test_a_step_against_the_gradient_lowers_the_loss(task, preset, form):
    head = built_head(task, preset, form)
    before, gradients = loss_and_gradients(head, features(form), training=False)
    norm = np.sqrt(sum((gradient**2).sum() for gradient in gradients))
    for variable, gradient in zip(head.trainable_variables, gradients, strict=True):
        variable.assign_sub(1e-3 / norm * gradient)
    after = float(distance(head(features(form), training=False)))
    assert after < before


@one_case_each
def test_a_saved_head_loads_with_its_options_and_the_same_outputs(task, preset, form, tmp_path):
    head = built_head(task, preset, form)
    inputs = symbolic(form)
    model = keras.Model(inputs, head(inputs))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    again = loaded.get_layer("head")
    assert type(again) is type(head)
    assert again.get_config() == head.get_config()
    expected, received = flat(model(features(form))), flat(loaded(features(form)))
    for key in expected:
        np.testing.assert_array_equal(received[key], expected[key], err_msg=key)


@one_case_each
def test_the_flat_graph_computes_what_the_layer_does(task, preset, form):
    head, graph = built_head(task, preset, form), flat_graph(task, preset, form)
    assert not any(type(layer).__module__.startswith("edgeheads") for layer in graph.layers)
    expected, received = flat(head(features(form))), flat(graph(features(form)))
    assert set(expected) == set(received)
    for key in expected:
        np.testing.assert_allclose(received[key], expected[key], rtol=1e-5, atol=1e-5, err_msg=key)


@one_case_each
def test_edge_outputs_name_layers_of_static_shape_in_the_flat_graph(task, preset, form):
    names = built_head(task, preset, form).edge_outputs()
    assert names
    for layer in names.values():
        output = flat_graph(task, preset, form).get_layer(layer).output
        assert None not in output.shape[1:]


_LOADER = """
import json, sys
sys.modules["edgeheads"] = None
from pathlib import Path
import keras, numpy as np
from keras import tree
worst = {}
for folder in sorted(Path(sys.argv[1]).iterdir()):
    model = keras.saving.load_model(folder / "model.keras")
    data = np.load(folder / "io.npz")
    inputs = [data[f"in{i}"] for i in range(len(model.inputs))]
    outputs = tree.flatten(model(inputs if len(inputs) > 1 else inputs[0]))
    worst[folder.name] = max(
        float(np.abs(keras.ops.convert_to_numpy(y) - data[f"out{i}"]).max())
        for i, y in enumerate(outputs)
    )
print(json.dumps(worst))
"""


def test_flat_graphs_load_where_edgeheads_is_not_installed(tmp_path):
    for case in matrix(per_task=1):
        if case.marks:
            continue
        task, preset, form = case.values
        graph, arrays = flat_graph(task, preset, form), features(form)
        folder = tmp_path / task.value
        folder.mkdir()
        graph.save(folder / "model.keras")
        data = {f"in{i}": x for i, x in enumerate(keras.tree.flatten(arrays))}
        data |= {
            f"out{i}": keras.ops.convert_to_numpy(y)
            for i, y in enumerate(keras.tree.flatten(graph(arrays)))
        }
        np.savez(folder / "io.npz", **data)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    run = subprocess.run(
        [sys.executable, "-c", _LOADER, str(tmp_path)],
        env={**environment, "KERAS_BACKEND": keras.backend.backend()},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    differences = json.loads(run.stdout.splitlines()[-1])
    assert set(differences) == {task.value for task in TASKS}
    assert max(differences.values()) == 0, differences


def _mixed_cases():
    kinds = (("mixed_float16", "efficient", "list"), ("mixed_bfloat16", "high_performance", "map"))
    for index, task in enumerate(TASKS):
        for k, (policy, preset, form) in enumerate(kinds):
            name = f"{task.value}-{policy}"
            marks = [] if index % 2 == k else [pytest.mark.slow]
            yield pytest.param(task, policy, preset, form, id=name, marks=marks)


@pytest.mark.parametrize(("task", "policy", "preset", "form"), _mixed_cases())
def test_under_a_mixed_policy_a_head_computes_in_it_and_returns_float32(task, policy, preset, form):
    full = built_head(task, preset, form)
    half = create_vision_head(task, name="head", dtype=policy, **options(task, preset))
    shapes = [(None, *shape) for shape in FORMS[form]]
    half.build(shapes if len(shapes) > 1 else shapes[0])
    half.set_weights(full.get_weights())
    computed = {layer.compute_dtype for layer in half._flatten_layers() if layer.trainable_weights}
    assert computed == {policy.removeprefix("mixed_")}
    expected, received = flat(full(features(form))), flat(half(features(form)))
    steps = 2.0**-10 if policy == "mixed_float16" else 2.0**-7
    for key, value in received.items():
        assert value.dtype == np.float32, key
        assert np.isfinite(value).all(), key
        if "keypoints" not in key and "instance_" not in key:  # a choice may tip over
            scale = max(1.0, np.abs(expected[key]).max())
            assert np.abs(value - expected[key]).max() < 64 * steps * scale, key
