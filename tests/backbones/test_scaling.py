"""The declared scaling and the cut graph give what the stock network gives on pixels."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeheads.backbones import create_backbone

keras = pytest.importorskip("keras")

# name -> (constructor, module of its preprocess_input); "imagenet" networks, whose weights are
# random here: the download is replaced by a local file.
_STOCK = {
    "mobilenet": ("MobileNet", "mobilenet"),
    "mobilenet_v2": ("MobileNetV2", "mobilenet_v2"),
    "mobilenet_v3_small_minimalistic": ("MobileNetV3Small", "mobilenet_v3"),
    "mobilenet_v3_large": ("MobileNetV3Large", "mobilenet_v3"),
    "efficientnet_b0": ("EfficientNetB0", "efficientnet"),
    "efficientnet_v2_b0": ("EfficientNetV2B0", "efficientnet_v2"),
    "resnet50": ("ResNet50", "resnet50"),
    "nasnet_mobile": ("NASNetMobile", "nasnet"),
}
_SLOW = {
    "mobilenet",
    "mobilenet_v2",
    "mobilenet_v3_large",
    "efficientnet_v2_b0",
    "nasnet_mobile",
    "resnet50",
}


def _stock(name: str, size: int, weights: str | None) -> Any:
    options = {"minimalistic": True} if name.endswith("minimalistic") else {}
    return getattr(keras.applications, _STOCK[name][0])(
        input_shape=(size, size, 3), include_top=False, weights=weights, **options
    )


def _published(name: str, folder: Path) -> Path:
    """Write a weights file as Keras distributes it, of random numbers."""
    keras.utils.set_random_seed(1)
    model = _stock(name, 224 if name == "nasnet_mobile" else 64, None)
    rng = np.random.default_rng(2)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights([rng.uniform(0.5, 1.5, w.shape) for w in layer.get_weights()])
        if isinstance(layer, keras.layers.Normalization) and layer.weights:
            # Those of the published files: the variance is the standard deviation.
            mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
            layer.set_weights([np.array(mean), np.array(std), np.array(0)])
    path = folder / "published.weights.h5"
    model.save_weights(path)
    return path


@pytest.mark.parametrize(
    "name", [pytest.param(x, marks=[pytest.mark.slow] if x in _SLOW else []) for x in _STOCK]
)
def test_imagenet_weights_compute_what_the_stock_network_computes(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _published(name, tmp_path)
    module = importlib.import_module("keras.src.utils.file_utils")
    monkeypatch.setattr(module, "get_file", lambda *args, **options: str(path))
    backbone = create_backbone(name, (64, 64, 3), weights="imagenet")
    preprocessing = keras.layers.Rescaling | keras.layers.Normalization
    assert not any(isinstance(layer, preprocessing) for layer in backbone.layers)
    # One node each: a tool that walks `layer.output` stays in this graph.
    assert all(len(layer._inbound_nodes) == 1 for layer in backbone.layers)

    if name == "nasnet_mobile":  # which Keras gives at 224 only
        stock = _stock(name, 64, None)
        stock.set_weights(_stock(name, 224, "imagenet").get_weights())
    else:
        stock = _stock(name, 64, "imagenet")
    coarsest = backbone.output["P5"]._keras_history.operation.name
    stock = keras.Model(stock.input, stock.get_layer(coarsest).output)
    preprocess = importlib.import_module(f"keras.applications.{_STOCK[name][1]}").preprocess_input

    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3)).astype("float32")
    scaling = backbone.scaling
    scaled = pixels * np.float32(scaling.scale) + np.float32(scaling.offset)
    ours = np.asarray(backbone(scaled, training=False)["P5"])
    theirs = np.asarray(stock(preprocess(pixels.copy()), training=False))
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4 * np.abs(theirs).max())
