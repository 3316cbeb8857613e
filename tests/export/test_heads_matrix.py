"""Every task's efficient head, on mobile backbones, in every precision."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

keras = pytest.importorskip("keras")
pytest.importorskip("tensorflow")

from edgeheads.backbones import create_backbone  # noqa: E402
from edgeheads.export.tflite import convert_to_tflite  # noqa: E402
from edgeheads.heads import HEADS, HeadConfiguration, create_vision_head  # noqa: E402
from edgeheads.model import build_model  # noqa: E402
from edgeheads.runtime import DeviceSession  # noqa: E402
from edgeheads.verify import _built_in  # noqa: E402

SIZE = 64
BACKBONES = {"tiny": 1.0, "mobilenet_v2": 0.35, "mobilenet_v3_small_minimalistic": 1.0}

# Largest mean difference from the float model, as a share of an output's range. The weights are
# random and batch norm has seen no data, which is harder on int8 than a trained network.
PARITY = {"float32": 1e-4, "float16": 1e-2, "int8": 0.1}


def images(count: int = 8) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(0)
    for _ in range(count):
        yield rng.uniform(-1, 1, (1, SIZE, SIZE, 3)).astype(np.float32)


def options(task: object) -> dict:
    """Return the efficient preset, without the prior of detectors and heatmaps.

    As a bias many times larger than what a random network says, it would hide all of that.
    """
    config = HeadConfiguration.get_efficient_config(task)  # type: ignore[arg-type]
    if "num_anchors" in config or "num_keypoints" in config:
        config["prior_probability"] = 0.5
    if "task_configs" in config:
        config["task_configs"] = {one: options(one) for one in config["task_configs"]}
    return config


@pytest.mark.slow
@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("task", HEADS, ids=[task.value for task in HEADS])
def test_head_converts_in_every_precision(task: object, backbone: str, tmp_path: Path) -> None:
    keras.utils.set_random_seed(0)
    network = create_backbone(
        backbone, (SIZE, SIZE, 3), width=BACKBONES[backbone], levels=["P3", "P4", "P5"]
    )
    config = options(task)
    head = create_vision_head(task, name=task.value.replace("-", "_"), **config)  # type: ignore
    model = build_model(network, task, **config)  # type: ignore[arg-type]
    outputs = {part: model.get_layer(name).output for part, name in head.edge_outputs().items()}
    image = next(images())
    expected = keras.Model(model.inputs[0], outputs).predict(image, verbose=0)
    for precision, bound in PARITY.items():
        path = tmp_path / f"{precision}.tflite"
        path.write_bytes(convert_to_tflite(model.inputs[0], outputs, precision, images))
        with DeviceSession() as session:
            facts = session.inspect(path)
            [tensor] = facts["inputs"]
            stored = image
            if precision == "int8":
                stored = (image / tensor["scale"] + tensor["zero_point"]).round().clip(-128, 127)
            found = session.predict(path, {"image": stored.astype(tensor["dtype"])})
        assert _built_in(facts).passed
        assert {one["name"] for one in facts["outputs"]} == set(outputs)
        assert all(one["shape"] == one["shape_signature"] for one in facts["outputs"])
        if precision == "int8":
            assert facts["non_integer"] == []
        for one in facts["outputs"]:
            real = found[one["name"]].astype(np.float32)
            if one["scale"] is not None:
                real = (real - one["zero_point"]) * one["scale"]
            reference = expected[one["name"]]
            span = max(float(np.ptp(reference)), 1e-3)
            assert np.abs(real - reference).mean() / span <= bound, (precision, one["name"])
