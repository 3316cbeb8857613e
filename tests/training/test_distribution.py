"""Several devices or processes give what one gives: the same batch, only divided."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

keras = pytest.importorskip("keras")

from edgeheads.errors import EdgeheadsError  # noqa: E402
from edgeheads.training.distribution import Distribution, distribute  # noqa: E402

# Trains on six rendered rooms, every pixel of which has a depth, without batch norm: neither the
# loss nor the network then depends on how a batch is divided.
SCRIPT = """
import sys
import numpy as np
from edgeheads.training.distribution import Distribution, distribute
distribution = distribute() if sys.argv[2] == "distribute" else Distribution()
import keras
from edgeheads.backbones import InputScaling
from edgeheads.data.scenes.labels import NAMES
from edgeheads.data.synthetic import SyntheticScenes
from edgeheads.tasks import get_task
from edgeheads.training.batches import TrainingBatches
from edgeheads.training.fit import Training
from edgeheads.training.optimizer import Optimization

def network():
    image = keras.Input((32, 32, 3))
    x = keras.layers.Conv2D(8, 3, strides=2, padding="same", activation="relu")(image)
    x = keras.layers.Conv2D(1, 3, padding="same", activation="softplus")(x)
    depth = keras.layers.UpSampling2D(2, interpolation="bilinear")(x)
    return keras.Model(image, {"depth": keras.layers.Rescaling(1.0, offset=0.1)(depth)})

keras.utils.set_random_seed(0)
model = network()
with distribution.building():
    trainee = network()
    trainee.set_weights(model.get_weights())
task = get_task("depth")
batches = TrainingBatches(
    list(SyntheticScenes(6, (32, 32))), task, size=(32, 32),
    scaling=InputScaling.uniform(1 / 127.5, -1.0), decoding={}, names=NAMES,
    steps=6, batch_size=4, augmentations=task.augmentations, seed=0,
)
options = Optimization(learning_rate=1e-2, ema_decay=0.9)
history = Training(
    model, trainee, batches, task.loss, options, distribution=distribution
).run()
np.savez(sys.argv[1], *model.get_weights(), losses=history.losses, devices=distribution.devices)
"""


def run_all(folder: Path, environments: list[dict[str, str]], *arguments: str) -> list[Any]:
    """Run the script once per environment, at the same time; return what each saved."""
    outputs = [folder / f"{index}.npz" for index in range(len(environments))]
    children = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(output), *arguments],
            env={**os.environ, "CUDA_VISIBLE_DEVICES": "", **environment},
            stdout=subprocess.DEVNULL,
            stderr=(folder / f"{output.stem}.log").open("wb"),
        )
        for output, environment in zip(outputs, environments, strict=True)
    ]
    try:
        codes = [child.wait(240) for child in children]
    finally:
        for child in children:
            child.kill()
            child.wait()
    logs = [(folder / f"{output.stem}.log").read_text()[-2000:] for output in outputs]
    assert codes == [0] * len(children), logs
    return [dict(np.load(output)) for output in outputs]


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def require_same(result: dict[str, Any], single: dict[str, Any]) -> None:
    assert result["devices"] == 2
    for name in single:
        if name != "devices":
            np.testing.assert_allclose(result[name], single[name], atol=2e-5, err_msg=name)
    # What is compared moved by far more than the tolerance.
    assert single["losses"][-1] < single["losses"][0] - 0.01


@pytest.mark.slow
def test_two_workers_on_loopback_train_what_one_process_trains(tmp_path: Path) -> None:
    pytest.importorskip("tensorflow")
    backend = {"KERAS_BACKEND": "tensorflow"}
    [single] = run_all(tmp_path, [backend], "alone")
    workers = [f"127.0.0.1:{port}" for port in free_ports(2)]
    environments = [
        {
            **backend,
            "TF_CONFIG": json.dumps(
                {"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}}
            ),
        }
        for index in range(2)
    ]
    both = run_all(tmp_path, environments, "distribute")
    for result in both:
        require_same(result, single)


@pytest.mark.slow
def test_two_jax_devices_train_what_one_trains(tmp_path: Path) -> None:
    pytest.importorskip("jax")
    backend = {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    [single] = run_all(tmp_path, [backend], "alone")
    flag = "--xla_force_host_platform_device_count=2"
    [both] = run_all(tmp_path, [{**backend, "XLA_FLAGS": flag}], "distribute")
    require_same(both, single)


def test_a_batch_that_cannot_be_divided_is_refused() -> None:
    with pytest.raises(EdgeheadsError, match="batch_size 6 cannot be divided among 4 devices"):
        Distribution(devices=4).check(batch_size=6, clip_norm=0.0)
    Distribution(devices=4).check(batch_size=8, clip_norm=1.0)


def test_replicas_cannot_clip_a_gradient_they_do_not_have() -> None:
    with pytest.raises(EdgeheadsError, match=r"clip_norm 0\.5 .*KERAS_BACKEND=jax"):
        Distribution(devices=2, replicas=2).check(batch_size=4, clip_norm=0.5)


def test_a_broken_tf_config_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keras.backend, "backend", lambda: "tensorflow")
    monkeypatch.setenv("TF_CONFIG", "{worker")
    with pytest.raises(EdgeheadsError, match="TF_CONFIG is no JSON mapping"):
        distribute()


def test_another_backend_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
    with pytest.raises(EdgeheadsError, match="the active one is torch"):
        distribute()
