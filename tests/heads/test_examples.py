"""The six integration examples, on stand-ins that return what each backbone returns."""

from __future__ import annotations

import keras
import pytest

from edgeheads.heads import HeadConfiguration, create_multi_task_head, create_vision_head


def _build(head, *shapes):
    """Lay the head on symbolic features and return {output: shape}: no arithmetic is done."""
    inputs = [keras.Input(shape) for shape in shapes]
    outputs = head.connect(inputs if len(inputs) > 1 else inputs[0])
    return keras.tree.map_structure(lambda x: tuple(x.shape), outputs)


def test_vit_b16_with_classification():
    config = HeadConfiguration.get_default_config("classification")
    shapes = _build(create_vision_head("classification", **config), (197, 768))
    assert shapes == {"logits": (None, 1000), "probabilities": (None, 1000)}


def test_resnet50_with_detection():
    config = HeadConfiguration.get_default_config("detection")
    head = create_vision_head("detection", **{**config, "hidden_dim": 32})
    grids = [(80, 80), (40, 40), (20, 20)]
    shapes = _build(head, *((*grid, 256 * 2**i) for i, grid in enumerate(grids, 1)))
    assert shapes == {"classifications": (None, 75600, 80), "regressions": (None, 75600, 4)}
    assert head.anchors.count(grids) == 75600


def test_resnet50_last_map_with_detection():
    head = create_vision_head("detection", num_classes=80, num_anchors=9, hidden_dim=32)
    assert _build(head, (20, 20, 2048))["classifications"] == (None, 3600, 80)


@pytest.mark.parametrize("prefix", [1, 5], ids=["class token", "class and register tokens"])
def test_dinov2_with_segmentation(prefix):
    config = HeadConfiguration.get_default_config("segmentation")
    config |= {"hidden_dim": 32, "num_classes": 21, "upsampling_factor": 14}
    shapes = _build(create_vision_head("segmentation", **config), (37 * 37 + prefix, 768))
    assert shapes["masks"] == shapes["logits"] == (None, 518, 518, 21)


def test_efficientnet_b4_with_depth():
    config = HeadConfiguration.get_default_config("depth")
    config |= {"hidden_dim": 32, "upsampling_factor": 32}
    shapes = _build(create_vision_head("depth", **config), (12, 12, 1792))
    assert shapes == {"depth": (None, 384, 384, 1), "confidence": (None, 384, 384, 1)}


def test_yolo12_with_three_tasks():
    head = create_multi_task_head(
        {
            "detection": {"num_classes": 80, "hidden_dim": 32},
            "segmentation": {"num_classes": 80, "upsampling_factor": 8, "hidden_dim": 32},
            "depth": {"upsampling_factor": 8, "hidden_dim": 32},
        },
        shared_backbone_dim=32,
        use_task_specific_attention=True,
    )
    shapes = _build(head, (80, 80, 128), (40, 40, 128), (20, 20, 256))
    assert shapes["detection"]["classifications"] == (None, 75600, 80)
    assert shapes["segmentation"]["masks"] == (None, 640, 640, 80)
    assert shapes["depth"]["depth"] == (None, 640, 640, 1)


def test_any_backbone_with_instance_segmentation():
    config = HeadConfiguration.get_default_config("instance-segmentation")
    head = create_vision_head("instance-segmentation", **{**config, "hidden_dim": 32})
    shapes = _build(head, (28, 28, 40), (14, 14, 80))
    anchors = 9 * (28 * 28 + 14 * 14)
    assert shapes["classifications"] == (None, anchors, 80)
    assert shapes["regressions"] == (None, anchors, 4)
    assert shapes["instance_masks"] == (None, 100, 28, 28)
    assert shapes["instance_boxes"] == (None, 100, 4)
