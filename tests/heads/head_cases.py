"""The head matrix: task x preset x input form, at a width that runs in milliseconds."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import keras
import numpy as np
import pytest

from edgeheads.heads import HEADS, BaseVisionHead, HeadConfiguration, create_vision_head
from edgeheads.tasks.task_type import TaskType

TASKS = tuple(HEADS)
PRESETS = ("default", "efficient", "high_performance")
# form -> shapes without the batch. Tokens carry one class token in front of a 4x4 grid.
FORMS: dict[str, tuple[tuple[int, ...], ...]] = {
    "map": ((8, 8, 12),),
    "tokens": ((17, 12),),
    "list": ((8, 8, 6), (4, 4, 10), (2, 2, 12)),
}
BATCH = 2

# Other than the defaults, so that an option that is not saved shows in a round trip.
_OVERRIDES: dict[TaskType, dict[str, Any]] = {
    TaskType.CLASSIFICATION: {"num_classes": 5, "pooling": "max"},
    TaskType.DETECTION: {
        "num_classes": 3,
        "num_anchors": 2,
        "anchor_scales": (1.5,),
        "anchor_ratios": (1.0, 2.0),
        "tower_depth": 2,
        "prior_probability": 0.05,
    },
    TaskType.SEGMENTATION: {"num_classes": 4, "upsampling_factor": 2},
    TaskType.DEPTH_ESTIMATION: {
        "min_depth": 0.5,
        "max_depth": 20.0,
        "depth_encoding": "linear",
        "upsampling_factor": 3,
    },
    TaskType.INSTANCE_SEGMENTATION: {
        "num_classes": 3,
        "num_anchors": 1,
        "anchor_scales": (1.0,),
        "anchor_ratios": (1.0,),
        "num_instances": 7,
        "mask_size": (6, 4),
        "num_prototypes": 5,
    },
    TaskType.KEYPOINT_DETECTION: {
        "num_keypoints": 3,
        "upsampling_factor": 2,
        "prior_probability": 0.1,
    },
    TaskType.SURFACE_NORMALS: {"output_size": (10, 12)},
    TaskType.ENHANCEMENT: {"scale": 2, "upsampling_factor": 1},
}


def options(task: TaskType, preset: str) -> dict[str, Any]:
    """Return a preset, narrowed and with every option of the task's own changed."""
    config = getattr(HeadConfiguration, f"get_{preset}_config")(task)
    if task is TaskType.MULTI_TASK:
        config["task_configs"] = {
            name: options(TaskType.parse(name), preset) for name in config["task_configs"]
        }
    return {**config, "hidden_dim": 16, **_OVERRIDES.get(task, {})}


@cache
def built_head(task: TaskType, preset: str, form: str) -> BaseVisionHead:
    """Return the case's head, built; tests share it."""
    keras.utils.set_random_seed(7)
    head = create_vision_head(task, name="head", **options(task, preset))
    shapes = [(None, *shape) for shape in FORMS[form]]
    head.build(shapes if len(shapes) > 1 else shapes[0])
    return head


@cache
def flat_graph(task: TaskType, preset: str, form: str) -> keras.Model:
    """Return the case's head laid as a functional graph; it shares the weights of `built_head`."""
    inputs = symbolic(form)
    return keras.Model(inputs, built_head(task, preset, form).connect(inputs))


def features(form: str, batch: int = BATCH) -> Any:
    """Return an input of the form, the same at each call."""
    rng = np.random.default_rng(3)
    arrays = [rng.normal(size=(batch, *shape)).astype("float32") for shape in FORMS[form]]
    return arrays if len(arrays) > 1 else arrays[0]


def symbolic(form: str) -> Any:
    """Return keras.Input of the form."""
    inputs = [keras.Input(shape) for shape in FORMS[form]]
    return inputs if len(inputs) > 1 else inputs[0]


def matrix(per_task: int = len(PRESETS)) -> list[Any]:
    """Return all cases, most of them slow.

    By default each task meets each preset and each form once, or the first `per_task` of them;
    several tasks at once, which cost as much as they are, meet the first.
    """
    cases = []
    for t, task in enumerate(TASKS):
        for p, preset in enumerate(PRESETS):
            for f, form in enumerate(FORMS):
                limit = 1 if task is TaskType.MULTI_TASK else per_task
                quick = (p + t) % len(PRESETS) == f and p < limit
                name = f"{task.value}-{preset}-{form}"
                marks = [] if quick else [pytest.mark.slow]
                cases.append(pytest.param(task, preset, form, id=name, marks=marks))
    return cases


def flat(outputs: Any) -> dict[str, Any]:
    """Return {"key/key": array} of nested outputs."""
    found: dict[str, Any] = {}
    for key, value in outputs.items():
        if isinstance(value, dict):
            found |= {f"{key}/{inner}": array for inner, array in flat(value).items()}
        else:
            found[key] = keras.ops.convert_to_numpy(value)
    return found


def distance(outputs: Any) -> Any:
    """Return a loss that every output takes part in: the distance to fixed random targets."""
    rng = np.random.default_rng(11)
    total = 0.0
    for tensor in keras.tree.flatten(outputs):
        target = rng.uniform(0, 1, size=tuple(tensor.shape)).astype("float32")
        total = total + keras.ops.mean(keras.ops.square(tensor - target))
    return total


def loss_and_gradients(
    layer: Any, inputs: Any, loss: Callable[[Any], Any] = distance, training: bool = True
) -> tuple[float, list[np.ndarray]]:
    """Return the loss, and its gradient for every trainable variable, on the active backend.

    The layer's state (batch norm statistics, seeds) moves on as it does in training.
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            value = loss(layer(inputs, training=training))
        found = tape.gradient(value, [one.value for one in layer.trainable_variables])
        none = [
            one.path
            for one, gradient in zip(layer.trainable_variables, found, strict=True)
            if gradient is None
        ]
        assert not none, f"no gradient reaches {none}"
        return float(value), [tf.convert_to_tensor(one).numpy() for one in found]
    import jax

    def pure(learned: list[Any], state: list[Any]) -> tuple[Any, list[Any]]:
        outputs, state = layer.stateless_call(learned, state, inputs, training=training)
        return loss(outputs), state

    learned = [one.value for one in layer.trainable_variables]
    state = [one.value for one in layer.non_trainable_variables]
    differentiated = jax.value_and_grad(pure, has_aux=True)
    if getattr(layer, "checkpoint", False):
        # Uncompiled, every recomputed stage is compiled on its own, which takes longer.
        differentiated = jax.jit(differentiated)
    (value, state), found = differentiated(learned, state)
    for variable, new in zip(layer.non_trainable_variables, state, strict=True):
        variable.assign(new)
    return float(value), [np.asarray(one) for one in found]
