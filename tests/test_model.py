"""A head on a backbone, as one flat graph."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import edgeheads
from edgeheads.backbones.base import Backbone, InputScaling
from edgeheads.heads import create_vision_head
from edgeheads.model import build_model
from edgeheads.tasks.task_type import TaskType

_SCALING = InputScaling((1 / 64, 1 / 128, 1 / 255), (-1.0, -0.5, 0.0))


@pytest.fixture(scope="module")
def backbone():
    image = keras.Input((32, 48, 3))
    x, names = image, []
    for level in range(1, 4):
        names.append(f"level_{level}")
        x = keras.layers.Conv2D(4 * level, 3, 2, "same", activation="relu", name=names[-1])(x)
    model = keras.Model(image, x, name="tiny")
    return Backbone.from_model(model, names, scaling=_SCALING)


def _shapes(model):
    return keras.tree.map_structure(lambda x: tuple(x.shape), model.output)


@pytest.mark.parametrize(
    ("task", "key", "channels"),
    [
        ("seg", "masks", 21),
        ("depth", "depth", 1),
        ("normals", "normals", 3),
        ("denoise", "image", 3),
    ],
)
def test_a_map_of_pixels_is_of_the_images_size(backbone, task, key, channels):
    shapes = _shapes(build_model(backbone, task, hidden_dim=8))
    assert shapes[key] == (None, 32, 48, channels)


def test_keypoint_heatmaps_stay_on_the_finest_map(backbone):
    assert _shapes(build_model(backbone, "pose", hidden_dim=8))["heatmaps"] == (None, 16, 24, 17)


def test_a_given_size_or_factor_wins(backbone):
    model = build_model(backbone, "seg", hidden_dim=8, upsampling_factor=1)
    assert _shapes(model)["masks"] == (None, 16, 24, 21)
    model = build_model(backbone, "seg", hidden_dim=8, output_size=(8, 8))
    assert _shapes(model)["masks"] == (None, 8, 8, 21)


def test_every_task_of_several_is_of_the_images_size(backbone):
    configs = {
        "seg": {"hidden_dim": 8, "num_classes": 3},
        TaskType.DEPTH_ESTIMATION: {"hidden_dim": 8, "upsampling_factor": 1},
        "sr": {"hidden_dim": 8, "scale": 2},
    }
    shapes = _shapes(build_model(backbone, "multi-task", hidden_dim=8, task_configs=configs))
    assert shapes["segmentation"]["masks"] == (None, 32, 48, 3)
    assert shapes["depth"]["depth"] == (None, 16, 24, 1)
    assert shapes["enhancement"]["image"] == (None, 64, 96, 3)


def test_the_graph_is_flat_and_its_layers_carry_the_tasks_name(backbone):
    model = build_model(backbone, "instance-segmentation", hidden_dim=8)
    names = [layer.name for layer in model.layers]
    assert "instance_segmentation_prototypes" in names
    assert not any(type(layer).__module__.startswith("edgeheads") for layer in model.layers)


@pytest.mark.parametrize("scale", [1, 2])
def test_enhancement_adds_to_the_image_that_the_backbone_sees(backbone, scale):
    model = build_model(backbone, "enhancement", hidden_dim=8, scale=scale)
    last = model.get_layer("enhancement_paint_colors")
    last.set_weights([np.zeros_like(one) for one in last.get_weights()])
    pixels = np.full((1, 32, 48, 3), 51.0)
    received = model((pixels * _SCALING.scale + _SCALING.offset).astype("float32"))["image"]
    assert received.shape == (1, 32 * scale, 48 * scale, 3)
    np.testing.assert_allclose(np.array(received), 0.2, atol=1e-5)


def test_a_head_that_was_made_before_keeps_its_weights(backbone):
    head = create_vision_head("classification", name="mine", hidden_dim=8, num_classes=3)
    model = build_model(backbone, head)
    assert model.get_layer("mine_classes") is head.part(keras.layers.Dense, "classes")


def test_tokens_make_a_model_too():
    tokens = keras.Input((17, 6))
    transformer = keras.Model(tokens, keras.layers.Dense(8)(tokens))
    shapes = _shapes(build_model(transformer, "cls", hidden_dim=8, num_classes=3))
    assert shapes["logits"] == (None, 3)


@pytest.mark.parametrize("name", edgeheads.__all__)
def test_every_public_name_is_there(name):
    assert getattr(edgeheads, name) is not None
