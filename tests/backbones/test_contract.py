"""What every entry of the table promises, checked on the entry itself."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeheads.backbones import BACKBONES, create_backbone

keras = pytest.importorskip("keras")

# Seconds to build, run, save and load; one of each family is quick.
_SLOW = {
    *(f"efficientnet_b{size}" for size in range(8)),
    *(f"efficientnet_lite{size}" for size in range(1, 5)),
    "efficientnet_v2_b0",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "mobilenet_v3_large",
    "mobilenet_v3_large_minimalistic",
    "resnet50",
    "nasnet_mobile",
    "yolo12_s",
    "yolo12_m",
    "yolo12_l",
    "yolo12_x",
    "mobilenet_v4_conv_medium",
    "mobilenet_v5_300m",
    "vit_tiny_patch16",
    "vit_small_patch16",
    "vit_base_patch16",
    "vit_base_patch32",
    "vit_large_patch16",
    *(name for name in BACKBONES if name.startswith("dino") and not name.endswith("_small")),
    *(f"mit_b{size}" for size in range(1, 6)),
    *(name for name in BACKBONES if "darknet" in name or name.startswith("csp_")),
    *(f"hgnetv2_b{size}" for size in range(1, 7)),
}

_needs_hub = pytest.mark.skipif(
    importlib.util.find_spec("keras_hub") is None, reason="keras-hub is not installed"
)


def _marks(name: str) -> list[pytest.MarkDecorator]:
    marks = [pytest.mark.slow] if name in _SLOW else []
    return [*marks, _needs_hub] if BACKBONES[name] == "hub" else marks


def _size(name: str) -> tuple[int, int]:
    # DINOv2 has patches of 14 pixels; KerasHub computes these for squares only.
    if name.startswith("dinov2"):
        return 70, 70
    return (64, 64) if name.startswith("dinov3") else (64, 96)


@dataclass(frozen=True)
class Built:
    """A backbone, what it was fed (two images), and what it returned."""

    backbone: Any
    images: np.ndarray
    outputs: dict[str, np.ndarray]


def _run(backbone: Any, images: np.ndarray) -> dict[str, np.ndarray]:
    return {name: np.asarray(x) for name, x in backbone(images, training=False).items()}


@pytest.fixture(
    scope="module", params=[pytest.param(name, marks=_marks(name)) for name in BACKBONES]
)
def built(request: pytest.FixtureRequest) -> Iterator[Built]:
    size = _size(request.param)
    backbone = create_backbone(request.param, (*size, 3))
    images = np.random.default_rng(0).uniform(-1, 1, (2, *size, 3)).astype("float32")
    yield Built(backbone, images, _run(backbone, images))
    keras.backend.clear_session()


def test_outputs_are_of_the_declared_stride_and_channels(built: Built) -> None:
    height, width = built.images.shape[1:3]
    assert list(built.outputs) == list(built.backbone.pyramid)
    for name, level in built.backbone.pyramid.items():
        if level.tokens:
            rows, columns = level.grid
            assert (rows * level.stride, columns * level.stride) == (height, width)
            shape = (2, level.prefix_tokens + rows * columns, level.channels)
        else:
            assert name == f"P{level.stride.bit_length() - 1}"
            shape = (2, height // level.stride, width // level.stride, level.channels)
        assert built.outputs[name].shape == shape
        assert np.isfinite(built.outputs[name]).all()


def test_levels_go_from_fine_to_coarse(built: Built) -> None:
    strides = [level.stride for level in built.backbone.pyramid.values()]
    assert strides == sorted(set(strides))


def test_the_batch_size_is_free(built: Built) -> None:
    alone = _run(built.backbone, built.images[:1])
    for name, x in alone.items():
        assert built.backbone.output[name].shape[0] is None
        np.testing.assert_allclose(x[0], built.outputs[name][0], rtol=1e-3, atol=1e-4)


def test_a_level_can_be_selected(built: Built) -> None:
    level = next(iter(built.backbone.pyramid))
    part = built.backbone.select([level])
    assert part.pyramid == {level: built.backbone.pyramid[level]}
    assert part.scaling == built.backbone.scaling
    assert len(part.weights) <= len(built.backbone.weights)
    np.testing.assert_array_equal(_run(part, built.images)[level], built.outputs[level])


def test_it_saves_and_loads_bit_exact(built: Built, tmp_path: Path) -> None:
    built.backbone.save(tmp_path / "backbone.keras")
    loaded = keras.saving.load_model(tmp_path / "backbone.keras")
    assert loaded.pyramid == built.backbone.pyramid
    assert loaded.scaling == built.backbone.scaling
    for name, x in _run(loaded, built.images).items():
        np.testing.assert_array_equal(x, built.outputs[name])


def test_weights_have_names_of_their_own(built: Built) -> None:
    paths = [variable.path for variable in built.backbone.weights]
    assert len(set(paths)) == len(paths)


def test_the_scaling_is_of_three_channels(built: Built) -> None:
    scaling = built.backbone.scaling
    assert len(scaling.scale) == len(scaling.offset) == 3
    # A black and a white pixel, each a few units at most; ResNet50 takes pixels less their mean.
    ends = np.array([0, 255])[:, None] * np.array(scaling.scale) + np.array(scaling.offset)
    assert (ends[0] < ends[1]).all()
    assert np.abs(ends).max() < 256
