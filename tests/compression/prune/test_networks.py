"""Pruning whole networks: those of keras.applications, and every head of ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

keras = pytest.importorskip("keras")
pytest.importorskip("tensorflow")

from edgeheads.backbones import create_backbone  # noqa: E402
from edgeheads.compression.macs import count_macs  # noqa: E402
from edgeheads.compression.prune.channels import Channels  # noqa: E402
from edgeheads.compression.prune.importance import importance  # noqa: E402
from edgeheads.compression.prune.meter import Exporter, FileMeter  # noqa: E402
from edgeheads.compression.prune.select import Limits, choose  # noqa: E402
from edgeheads.compression.prune.structured import Criterion, prune_channels  # noqa: E402
from edgeheads.compression.prune.surgery import remove_channels  # noqa: E402
from edgeheads.heads import HEADS, HeadConfiguration, create_vision_head  # noqa: E402
from edgeheads.model import build_model  # noqa: E402
from edgeheads.runtime import BenchSettings, DeviceSession  # noqa: E402
from edgeheads.tasks.task_type import TaskType  # noqa: E402

SIZE = 64
APPLICATIONS = ("MobileNetV2", "MobileNetV3Small", "MobileNetV3Large", "EfficientNetB0", "ResNet50")
HOSTS = {"tiny": 1.0, "mobilenet_v2": 0.35, "mobilenet_v3_small_minimalistic": 1.0}


def with_statistics(model: Any) -> Any:
    """Give batch norms statistics and scales of their own: 0 and 1 would hide a wrong slice."""
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights([rng.uniform(0.5, 1.5, w.shape) for w in layer.weights])
    return model


def silence(channels: Channels, removed: np.ndarray) -> None:
    """Make what removed channels feed into later kernels zero: then they may go unnoticed."""
    for slot in channels.slots:
        layer = channels.model.get_layer(slot.layer)
        takes = not slot.makes and layer.weights[slot.weight].name.endswith("kernel")
        if takes:
            weights = layer.get_weights()
            index = [slice(None)] * weights[slot.weight].ndim
            index[slot.axis] = ~channels.kept(slot, removed)
            weights[slot.weight][tuple(index)] = 0
            layer.set_weights(weights)


def check_silent_channels_go_unnoticed(model: Any, protect: tuple[str, ...] = ()) -> Any:
    channels = Channels.follow(model, protect)
    removed = choose(channels, importance(channels, "l2"), 0.4, Limits())
    assert removed.any()
    silence(channels, removed)
    smaller = remove_channels(channels, removed)
    image = np.random.default_rng(1).uniform(-1, 1, (1, SIZE, SIZE, 3)).astype(np.float32)
    expected, found = model.predict(image, verbose=0), smaller.predict(image, verbose=0)
    for a, b in zip(keras.tree.flatten(expected), keras.tree.flatten(found), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-3, atol=1e-4 * max(1.0, float(np.abs(a).max())))
    return smaller


@pytest.mark.slow
@pytest.mark.parametrize("name", APPLICATIONS)
def test_applications_at_half_the_macs(name: str, tmp_path: Path) -> None:
    keras.utils.set_random_seed(0)
    network = getattr(keras.applications, name)
    model = with_statistics(network(weights=None, input_shape=(SIZE, SIZE, 3), classes=10))
    pruned = prune_channels(model, "macs=0.5")
    assert 0.47 * pruned.macs[0] < pruned.macs[1] <= 0.5 * pruned.macs[0]
    assert pruned.macs[1] == count_macs(pruned.model)
    image = np.random.default_rng(0).uniform(0, 255, (1, SIZE, SIZE, 3)).astype(np.float32)
    expected = pruned.model.predict(image, verbose=0)
    assert np.isfinite(expected).all()
    pruned.model.save(tmp_path / "pruned.keras")
    again = keras.saving.load_model(tmp_path / "pruned.keras")
    np.testing.assert_array_equal(again.predict(image, verbose=0), expected)
    (tmp_path / "pruned.tflite").write_bytes(Exporter()(pruned.model, "float32"))
    with DeviceSession() as session:
        [name_in_file] = [
            one["name"] for one in session.inspect(tmp_path / "pruned.tflite")["inputs"]
        ]
        found = session.predict(tmp_path / "pruned.tflite", {name_in_file: image})
    np.testing.assert_allclose(found["output_0"], expected, atol=1e-4)
    check_silent_channels_go_unnoticed(model)


def head_on(task: TaskType, backbone: str) -> tuple[Any, dict[str, str]]:
    keras.utils.set_random_seed(0)
    network = create_backbone(
        backbone, (SIZE, SIZE, 3), width=HOSTS[backbone], levels=["P3", "P4", "P5"]
    )
    config = HeadConfiguration.get_efficient_config(task)
    head = create_vision_head(task, name=task.value.replace("-", "_"), **config)
    return build_model(network, task, **config), head.edge_outputs()


CASES = [
    pytest.param(
        task, host, id=f"{task.value}-{host}", marks=[] if host == "tiny" else [pytest.mark.slow]
    )
    for task in HEADS
    for host in HOSTS
    if host != "tiny" or task is not TaskType.MULTI_TASK
]


@pytest.mark.parametrize(("task", "host"), CASES)
def test_every_head_keeps_its_outputs(task: TaskType, host: str) -> None:
    model, edge = head_on(task, host)
    before = [tensor.shape for tensor in keras.tree.flatten(model.output)]
    smaller = check_silent_channels_go_unnoticed(with_statistics(model), tuple(edge.values()))
    assert [tensor.shape for tensor in keras.tree.flatten(smaller.output)] == before
    for layer in edge.values():
        assert smaller.get_layer(layer).output.shape == model.get_layer(layer).output.shape
    assert count_macs(smaller) < 0.8 * count_macs(model)


@pytest.mark.slow
def test_targets_that_are_measured() -> None:
    model = head_on(TaskType.CLASSIFICATION, "tiny")[0]
    size = FileMeter("size", "float32")
    pruned = prune_channels(model, "size=0.5", Criterion(), size)
    assert 0.4 * size(model) < size(pruned.model) == pruned.reached <= 0.5 * size(model)
    settings = BenchSettings(warmup_runs=2, min_warmup_seconds=0.05, runs=20)
    with DeviceSession() as session:
        meter = FileMeter("latency", "float32", session=session, settings=settings, repeats=2)
        pruned = prune_channels(model, "latency=0.7", Criterion(), meter)
        assert pruned.reached <= pruned.target.value
        assert count_macs(pruned.model) < count_macs(model)
