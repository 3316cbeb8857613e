from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from edgeheads.backbones import BACKBONES, create_backbone
from edgeheads.errors import EdgeheadsError, MissingDependencyError

keras = pytest.importorskip("keras")

from edgeheads.backbones.hub_mobilenet import MOBILENETS  # noqa: E402
from edgeheads.backbones.hub_networks import NETWORKS  # noqa: E402


def test_the_table_names_every_network_of_the_hub() -> None:
    named = {name for name, family in BACKBONES.items() if family == "hub"}
    assert named == {*NETWORKS, *MOBILENETS}


def test_without_keras_hub_the_error_names_the_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "keras_hub.models", None)
    with pytest.raises(MissingDependencyError, match=r'pip install "edgeheads\[hub\]"'):
        create_backbone("hgnetv2_b0", (64, 64, 3))
    with pytest.raises(
        MissingDependencyError, match="preset 'vit_base_patch16_224_imagenet' needs"
    ):
        create_backbone("vit_tiny_patch16", (64, 64, 3), weights="vit_base_patch16_224_imagenet")


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(EdgeheadsError, match="multiples of 14, received"):
        create_backbone("dinov2_small", (64, 64, 3))
    with pytest.raises(EdgeheadsError, match="must be square, received"):
        create_backbone("dinov2_small", (70, 84, 3))
    with pytest.raises(EdgeheadsError, match=r"width must be one of \(1.0,\)"):
        create_backbone("hgnetv2_b0", (64, 64, 3), width=0.5)


# Trainable parameters in millions, of the published network less its classifier.
_PARAMETERS = {
    "efficientnet_lite0": 2.96,  # 4.65 less 412 k above the features and 1.281 for the classes
    "mobilenet_v4_conv_small": 1.13,  # 3.77 less 124 k, 1.23 and 1.281
    "hgnetv2_b0": 1.86,  # 6.00 less 2.10 and 2.05
}


@pytest.mark.parametrize("name", _PARAMETERS)
def test_parameters_are_those_of_the_published_network(name: str) -> None:
    pytest.importorskip("keras_hub", reason="keras-hub is not installed")
    backbone = create_backbone(name, (64, 64, 3))
    count = sum(int(np.prod(x.shape)) for x in backbone.trainable_weights) / 1e6
    assert count == pytest.approx(_PARAMETERS[name], rel=0.02)


@pytest.mark.parametrize("name", ["efficientnet_lite0", "dinov3_small", "hgnetv2_b0"])
def test_a_preset_folder_loads(name: str, tmp_path: Path) -> None:
    hub = pytest.importorskip("keras_hub", reason="keras-hub is not installed")
    network = NETWORKS[name]
    hub_class = getattr(hub.models, network.hub_class)
    source = hub_class(**network.parameters, **{network.shape_argument: (64, 64, 3)})
    source.save_to_preset(str(tmp_path / "preset"))
    backbone = create_backbone(name, (96, 96, 3), weights=tmp_path / "preset")
    assert backbone.input.shape[1:] == (96, 96, 3)
    # What the network has above its features comes last.
    for x, y in zip(backbone.get_weights(), source.get_weights(), strict=False):
        np.testing.assert_array_equal(x, y)


def test_a_vit_preset_computes_what_keras_hub_computes(tmp_path: Path) -> None:
    hub = pytest.importorskip("keras_hub", reason="keras-hub is not installed")
    source = hub.models.ViTBackbone(
        image_shape=(64, 96, 3),
        patch_size=16,
        num_layers=2,
        num_heads=2,
        hidden_dim=32,
        mlp_dim=128,
    )
    rng = np.random.default_rng(0)
    source.set_weights([rng.normal(0, 0.3, x.shape) for x in source.get_weights()])
    source.save_to_preset(str(tmp_path / "preset"))
    backbone = create_backbone("tiny_vit", (64, 96, 3), weights=tmp_path / "preset")
    images = rng.uniform(-1, 1, (2, 64, 96, 3)).astype("float32")
    np.testing.assert_allclose(
        np.asarray(backbone(images)["tokens"]), np.asarray(source(images)), atol=1e-4
    )
    with pytest.raises(EdgeheadsError, match=r"use input_shape \(64, 96, 3\)"):
        create_backbone("tiny_vit", (64, 64, 3), weights=tmp_path / "preset")
    with pytest.raises(EdgeheadsError, match=r"is no vit_tiny_patch16: expected patch size"):
        create_backbone("vit_tiny_patch16", (64, 96, 3), weights=tmp_path / "preset")


def test_a_preset_of_another_size_is_refused(tmp_path: Path) -> None:
    hub = pytest.importorskip("keras_hub", reason="keras-hub is not installed")
    parameters = NETWORKS["hgnetv2_b0"].parameters
    source = hub.models.HGNetV2Backbone(**parameters, image_shape=(64, 64, 3))
    source.save_to_preset(str(tmp_path / "preset"))
    with pytest.raises(EdgeheadsError, match=r"is no hgnetv2_b1: it has \d+ parameters"):
        create_backbone("hgnetv2_b1", (64, 64, 3), weights=tmp_path / "preset")


def test_a_mit_preset_computes_what_keras_hub_computes(tmp_path: Path) -> None:
    if keras.backend.backend() == "jax":
        pytest.skip("KerasHub's own MiT takes squares only on JAX, with which ours is compared")
    hub = pytest.importorskip("keras_hub", reason="keras-hub is not installed")
    source = hub.models.MiTBackbone(
        layerwise_depths=[2, 2, 2, 2],
        num_layers=4,
        layerwise_num_heads=[1, 2, 5, 8],
        layerwise_sr_ratios=[8, 4, 2, 1],
        max_drop_path_rate=0.1,
        layerwise_patch_sizes=[7, 3, 3, 3],
        layerwise_strides=[4, 2, 2, 2],
        hidden_dims=[32, 64, 160, 256],
        image_shape=(64, 64, 3),
    )
    source.save_to_preset(str(tmp_path / "preset"))
    backbone = create_backbone("mit_b0", (64, 64, 3), weights=tmp_path / "preset")
    images = np.random.default_rng(0).normal(size=(2, 64, 64, 3)).astype("float32")
    theirs = keras.Model(source.input, source.pyramid_outputs)(images, training=False)
    ours = backbone(images, training=False)
    for level in range(4):
        # KerasHub has the approximate GELU here, the published network the exact one.
        np.testing.assert_allclose(
            np.asarray(ours[f"P{level + 2}"]), np.asarray(theirs[f"P{level + 1}"]), atol=2e-2
        )
    assert create_backbone("mit_b0", (64, 96, 3), weights=tmp_path / "preset").get_weights()[
        0
    ].shape == (7, 7, 3, 32)
    with pytest.raises(EdgeheadsError, match="is no mit_b1: expected depths and dimensions"):
        create_backbone("mit_b1", (64, 64, 3), weights=tmp_path / "preset")


def test_an_unknown_preset_lists_those_there_are(tmp_path: Path) -> None:
    pytest.importorskip("keras_hub", reason="keras-hub is not installed")
    with pytest.raises(EdgeheadsError, match=r"could not be loaded .* presets: .*mit_b0_ade20k"):
        create_backbone("mit_b0", (64, 64, 3), weights=str(tmp_path / "nothing"))


def test_imagenet_stands_for_a_preset(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = pytest.importorskip("keras_hub", reason="keras-hub is not installed")
    asked = []

    def from_preset(preset: str, **options: object) -> None:
        asked.append(preset)
        raise OSError("no network")

    monkeypatch.setattr(hub.models.EfficientNetBackbone, "from_preset", from_preset)
    with pytest.raises(EdgeheadsError, match=r"could not be loaded \(no network\)"):
        create_backbone("efficientnet_lite0", (64, 64, 3), weights="imagenet")
    assert asked == ["efficientnet_lite0_ra_imagenet"]
    with pytest.raises(EdgeheadsError, match="dinov2_small has no ImageNet weights"):
        create_backbone("dinov2_small", (70, 70, 3), weights="imagenet")


@pytest.mark.parametrize("suffix", [".npz", ".keras"])
@pytest.mark.parametrize("name", ["efficientnet_lite0", "dinov3_small", "hgnetv2_b0"])
def test_weights_files_load(name: str, suffix: str, tmp_path: Path) -> None:
    pytest.importorskip("keras_hub", reason="keras-hub is not installed")
    backbone = create_backbone(name, (64, 64, 3))
    path = tmp_path / f"weights{suffix}"
    if suffix == ".npz":
        np.savez(path, **{x.path: np.asarray(x) for x in backbone.weights})
    else:
        backbone.save(path)
    loaded = create_backbone(name, (64, 64, 3), weights=path)
    for x, y in zip(loaded.get_weights(), backbone.get_weights(), strict=True):
        np.testing.assert_array_equal(x, y)
