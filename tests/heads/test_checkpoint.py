"""checkpoint=True: the same gradients for less memory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from head_cases import FORMS, features, loss_and_gradients, options

from edgeheads.errors import EdgeheadsError
from edgeheads.heads import create_vision_head
from edgeheads.tasks.task_type import TaskType


def _head(task: TaskType, preset: str, form: str, **changes):
    """A head that drops out and normalizes by batch, both of which have state."""
    keras.utils.set_random_seed(5)
    config = {**options(task, preset), **changes}
    head = create_vision_head(task, name="head", **config)
    shapes = [(None, *shape) for shape in FORMS[form]]
    head.build(shapes if len(shapes) > 1 else shapes[0])
    return head


@pytest.mark.parametrize(
    ("task", "form"),
    [
        (TaskType.SEGMENTATION, "list"),
        (TaskType.INSTANCE_SEGMENTATION, "map"),
        (TaskType.MULTI_TASK, "list"),
        (TaskType.CLASSIFICATION, "tokens"),
    ],
    ids=lambda value: getattr(value, "value", value),
)
def test_gradients_and_state_are_the_same(task, form):
    stateful = {"dropout_rate": 0.5, "normalization_type": "batch_norm"}
    plain = _head(task, "default", form, **stateful)
    thrifty = _head(task, "default", form, checkpoint=True, **stateful)
    thrifty.set_weights(plain.get_weights())
    for a, b in zip(_seeds(plain), _seeds(thrifty), strict=True):
        b.assign(a.value)
    before = [np.array(one) for one in plain.non_trainable_variables]
    loss, expected = loss_and_gradients(plain, features(form))
    loss_again, received = loss_and_gradients(thrifty, features(form))
    assert loss_again == pytest.approx(loss, rel=1e-5)
    for variable, a, b in zip(plain.trainable_variables, expected, received, strict=True):
        scale = max(np.abs(a).max(), 1e-6)
        np.testing.assert_allclose(b / scale, a / scale, atol=1e-4, err_msg=variable.path)
    after = [np.array(one) for one in plain.non_trainable_variables]
    assert any((a != b).any() for a, b in zip(before, after, strict=True))
    for a, b in zip(after, thrifty.non_trainable_variables, strict=True):
        np.testing.assert_allclose(np.array(b), a, rtol=1e-5, atol=1e-6)


def _seeds(head):
    return [one for one in head.non_trainable_variables if "seed" in one.path]


def test_the_flat_graph_is_the_same_with_and_without():
    inputs = keras.Input((8, 8, 12))
    graphs = []
    for checkpoint in (False, True):
        head = _head(TaskType.DEPTH_ESTIMATION, "efficient", "map", checkpoint=checkpoint)
        graphs.append([layer.name for layer in keras.Model(inputs, head.connect(inputs)).layers])
    assert graphs[0] == graphs[1]


def test_another_backend_is_refused_by_name(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
    with pytest.raises(EdgeheadsError, match="tensorflow and jax, the active one is torch"):
        create_vision_head("depth", checkpoint=True)


# Four tasks on one 64x64 map: what the stages of each keep adds up, unless it is dropped.
_PEAK = """
import sys
import numpy as np, keras
from edgeheads.heads import create_multi_task_head
task = {"hidden_dim": 64, "ffn_type": "swiglu", "use_attention": True, "attention_type": "cbam"}
head = create_multi_task_head(
    {"classification": {**task, "num_classes": 4},
     "segmentation": {**task, "num_classes": 4, "upsampling_factor": 1},
     "depth": {**task, "upsampling_factor": 1},
     "normals": {**task, "upsampling_factor": 1}},
    shared_backbone_dim=64, attention_type="cbam", checkpoint=sys.argv[1] == "1")
maps = np.ones((8, 64, 64, 32), "float32")
head.build(maps.shape)
def total(outputs):
    return sum(keras.ops.sum(x) for x in keras.tree.flatten(outputs))
def resident():
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith("VmHWM"):
                return int(line.split()[1]) * 1024
if keras.backend.backend() == "jax":
    # What the forward pass leaves for the backward pass. (XLA's CPU compiler merges the second
    # computation with the first one again, so the peak of a compiled step says nothing here.)
    import jax
    def loss(learned):
        state = [v.value for v in head.non_trainable_variables]
        return total(head.stateless_call(learned, state, maps, training=True)[0])
    _, backward = jax.vjp(loss, [v.value for v in head.trainable_variables])
    print(sum(x.nbytes for x in jax.tree.leaves(backward)))
else:
    import tensorflow as tf
    maps = tf.constant(maps)
    before = resident()
    with tf.GradientTape() as tape:
        loss = total(head(maps, training=True))
    tape.gradient(loss, [v.value for v in head.trainable_variables])
    print(resident() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's peak memory")
def test_a_training_step_needs_less_memory():
    peak_bytes = {}
    for checkpoint in ("0", "1"):
        run = subprocess.run(
            [sys.executable, "-c", _PEAK, checkpoint],
            env={**os.environ, "KERAS_BACKEND": keras.backend.backend()},
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.returncode == 0, run.stderr[-2000:]
        peak_bytes[checkpoint] = int(run.stdout.split()[-1])
    assert peak_bytes["1"] < 0.7 * peak_bytes["0"], peak_bytes
