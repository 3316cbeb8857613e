"""The six integration examples, whole: a real backbone, a head, two images, and their shapes."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from edgeheads import (
    HeadConfiguration,
    build_model,
    create_backbone,
    create_multi_task_head,
    create_vision_head,
)

pytestmark = pytest.mark.slow

_BATCH = 2


def _outputs(model: keras.Model) -> dict:
    """Feed two images of noise; return {output: array}."""
    images = np.random.default_rng(0).uniform(-1, 1, (_BATCH, *model.input_shape[1:]))
    outputs = model.predict(images.astype("float32"), batch_size=1, verbose=0)
    for array in keras.tree.flatten(outputs):
        assert np.isfinite(array).all()
    return outputs


def test_vit_b16_classifies():
    backbone = create_backbone("vit_base_patch16", (224, 224, 3))
    config = HeadConfiguration.get_default_config("classification")
    model = build_model(backbone, create_vision_head("classification", **config))
    outputs = _outputs(model)
    assert outputs["logits"].shape == outputs["probabilities"].shape == (_BATCH, 1000)
    np.testing.assert_allclose(outputs["probabilities"].sum(axis=1), 1, atol=1e-4)


def test_resnet50_detects():
    backbone = create_backbone("resnet50", (640, 640, 3), levels=["P3", "P4", "P5"])
    config = HeadConfiguration.get_default_config("detection") | {"hidden_dim": 32}
    outputs = _outputs(build_model(backbone, create_vision_head("detection", **config)))
    anchors = 9 * (80 * 80 + 40 * 40 + 20 * 20)
    assert outputs["classifications"].shape == (_BATCH, anchors, 80)
    assert outputs["regressions"].shape == (_BATCH, anchors, 4)


def test_dinov2_segments():
    pytest.importorskip("keras_hub", reason="keras-hub is not installed")
    backbone = create_backbone("dinov2_small", (518, 518, 3))
    config = HeadConfiguration.get_default_config("segmentation")
    config |= {"num_classes": 21, "upsampling_factor": 14, "hidden_dim": 32}
    outputs = _outputs(build_model(backbone, create_vision_head("segmentation", **config)))
    assert outputs["logits"].shape == outputs["masks"].shape == (_BATCH, 518, 518, 21)


def test_efficientnet_b4_estimates_depth():
    backbone = create_backbone("efficientnet_b4", (384, 384, 3))
    config = HeadConfiguration.get_default_config("depth")
    config |= {"hidden_dim": 32, "output_size": (384, 384)}
    outputs = _outputs(build_model(backbone, create_vision_head("depth", **config)))
    assert outputs["depth"].shape == outputs["confidence"].shape == (_BATCH, 384, 384, 1)
    assert outputs["depth"].min() >= 0.1 - 1e-5
    assert outputs["depth"].max() <= 100 + 1e-3


def test_yolo12_does_three_tasks():
    backbone = create_backbone("yolo12_n", (640, 640, 3))
    head = create_multi_task_head(
        {
            "detection": {"num_classes": 80, "hidden_dim": 32},
            "segmentation": {"num_classes": 80, "hidden_dim": 32, "output_size": (640, 640)},
            "depth": {"hidden_dim": 32, "output_size": (640, 640)},
        },
        shared_backbone_dim=32,
    )
    outputs = _outputs(build_model(backbone, head))
    assert outputs["segmentation"]["masks"].shape == (_BATCH, 640, 640, 80)
    assert outputs["depth"]["depth"].shape == (_BATCH, 640, 640, 1)
    assert outputs["detection"]["classifications"].shape == (_BATCH, 75600, 80)


@pytest.mark.parametrize("name", ["mobilenet_v2", "efficientnet_v2_b0", "tiny_vit"])
def test_any_backbone_segments_instances(name):
    backbone = create_backbone(name, (224, 224, 3))
    config = HeadConfiguration.get_default_config("instance-segmentation") | {"hidden_dim": 32}
    outputs = _outputs(build_model(backbone, create_vision_head("instance-segmentation", **config)))
    assert outputs["instance_masks"].shape == (_BATCH, 100, 28, 28)
    assert outputs["instance_boxes"].shape == (_BATCH, 100, 4)
    assert outputs["instance_scores"].shape == (_BATCH, 100, 80)
