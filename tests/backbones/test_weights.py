from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeheads.errors import EdgeheadsError

keras = pytest.importorskip("keras")

from edgeheads.backbones import create_backbone  # noqa: E402
from edgeheads.backbones.resnet import _take_rgb  # noqa: E402
from edgeheads.backbones.weights import load_weights  # noqa: E402

_SHAPE = (64, 64, 3)
_MOBILENET = "mobilenet_v3_small_minimalistic"
_PUBLISHED = (
    Path(__file__).parents[3] / "shared" / "weights" / "mobilenet_v2_0.35_imagenet_notop.npz"
)


def _save(model: Any, path: Path) -> Path:
    if path.suffix == ".npz":
        np.savez(path, **{x.path: keras.ops.convert_to_numpy(x) for x in model.weights})
    elif path.name.endswith(".weights.h5"):
        model.save_weights(path)
    else:
        model.save(path)
    return path


def _assert_same_weights(one: Any, other: Any) -> None:
    for x, y in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("suffix", [".npz", ".keras", ".weights.h5", ".h5"])
@pytest.mark.parametrize("name", ["tiny", "tiny_vit"])
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_what_a_backbone_saves_it_loads(name: str, suffix: str, tmp_path: Path) -> None:
    keras.utils.set_random_seed(0)
    backbone = create_backbone(name, _SHAPE)
    path = _save(backbone, tmp_path / f"file{suffix}")
    _assert_same_weights(create_backbone(name, _SHAPE, weights=str(path)), backbone)


def test_weights_do_not_depend_on_the_image_size(tmp_path: Path) -> None:
    backbone = create_backbone("tiny", _SHAPE)
    path = _save(backbone, tmp_path / "tiny.npz")
    _assert_same_weights(create_backbone("tiny", (96, 128, 3), weights=path), backbone)


@pytest.mark.parametrize(
    "suffix", [".npz", ".weights.h5", pytest.param(".keras", marks=pytest.mark.slow)]
)
def test_the_stock_networks_file_loads(suffix: str, tmp_path: Path) -> None:
    """It has a layer above the features, which is left off; the backbone's own file loads too."""
    stock = keras.applications.MobileNetV3Small(
        input_shape=_SHAPE, include_top=False, weights=None, minimalistic=True
    )
    backbone = create_backbone(_MOBILENET, _SHAPE, weights=_save(stock, tmp_path / f"x{suffix}"))
    for variable in backbone.weights:
        layer, name = variable.path.split("/")
        theirs = next(x for x in stock.get_layer(layer).weights if x.name == name)
        np.testing.assert_array_equal(np.asarray(variable), np.asarray(theirs))
    path = _save(backbone, tmp_path / f"own{suffix}")
    _assert_same_weights(create_backbone(_MOBILENET, _SHAPE, weights=path), backbone)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".npz", ".keras", ".weights.h5"])
def test_efficientnet_loads_files_with_and_without_preprocessing(
    suffix: str, tmp_path: Path
) -> None:
    stock = keras.applications.EfficientNetB0(input_shape=_SHAPE, include_top=False, weights=None)
    path = _save(stock, tmp_path / f"stock{suffix}")
    backbone = create_backbone("efficientnet_b0", _SHAPE, weights=path)
    kernel = backbone.get_layer("stem_conv").kernel
    np.testing.assert_array_equal(
        np.asarray(kernel), np.asarray(stock.get_layer("stem_conv").kernel)
    )
    path = _save(backbone, tmp_path / f"own{suffix}")
    _assert_same_weights(create_backbone("efficientnet_b0", _SHAPE, weights=path), backbone)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".npz", ".keras", ".weights.h5"])
def test_resnet_turns_the_first_kernel_once(suffix: str, tmp_path: Path) -> None:
    stock = keras.applications.ResNet50(input_shape=_SHAPE, include_top=False, weights=None)
    kernel = np.asarray(stock.get_layer("conv1_conv").kernel)
    path = _save(stock, tmp_path / f"stock{suffix}")
    backbone = create_backbone("resnet50", _SHAPE, weights=path)
    np.testing.assert_array_equal(
        np.asarray(backbone.get_layer("conv1_rgb").kernel), kernel[:, :, ::-1]
    )
    path = _save(backbone, tmp_path / f"own{suffix}")
    _assert_same_weights(create_backbone("resnet50", _SHAPE, weights=path), backbone)


def test_the_first_kernel_is_turned_from_bgr_to_rgb() -> None:
    image = keras.Input((8, 8, 3))
    network = keras.Model(image, keras.layers.Conv2D(2, 3, name="conv1_conv")(image))
    pixels = np.random.default_rng(0).random((1, 8, 8, 3), "float32")
    np.testing.assert_allclose(
        np.asarray(_take_rgb(network)(pixels)), np.asarray(network(pixels[..., ::-1])), atol=1e-6
    )


@pytest.mark.skipif(not _PUBLISHED.is_file(), reason=f"{_PUBLISHED.name} is not beside the code")
def test_published_mobilenet_v2_loads_every_array() -> None:
    with np.load(_PUBLISHED) as archive:
        assert len(archive.files) == 260
        stem = archive["Conv1/kernel"]
    backbone = create_backbone("mobilenet_v2", (96, 96, 3), width=0.35, weights=_PUBLISHED)
    np.testing.assert_array_equal(np.asarray(backbone.get_layer("Conv1").kernel), stem)


@pytest.mark.parametrize("suffix", [".npz", ".keras", ".weights.h5"])
def test_layers_that_keras_numbers_are_matched_by_their_order(suffix: str, tmp_path: Path) -> None:
    """Keras counts layers without a name through the whole process."""

    def network(_: str | None = None) -> keras.Model:
        x = image = keras.Input((8, 8, 3))
        for channels in range(1, 13):
            x = keras.layers.Conv2D(channels, 3, padding="same")(x)
        return keras.Model(image, x)

    saved = network()
    path = _save(saved, tmp_path / f"file{suffix}")
    loaded = load_weights(network, path, lambda model: model)
    assert {x.path for x in loaded.weights}.isdisjoint(x.path for x in saved.weights)
    _assert_same_weights(loaded, saved)


# Errors


def _tiny_file(folder: Path, **changes: np.ndarray) -> Path:
    arrays = {
        x.path: keras.ops.convert_to_numpy(x) for x in create_backbone("tiny", _SHAPE).weights
    }
    np.savez(folder / "tiny.npz", **{**arrays, **changes})
    return folder / "tiny.npz"


def _refused(weights: Path | str, name: str = "tiny", **options: Any) -> str:
    with pytest.raises(EdgeheadsError) as error:
        create_backbone(name, _SHAPE, weights=weights, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_missing_file(tmp_path: Path) -> None:
    text = _refused(tmp_path / "none.npz")
    assert "none.npz does not exist; give a .npz, .keras or .h5 file, 'imagenet'" in text


def test_a_wrong_suffix(tmp_path: Path) -> None:
    (tmp_path / "weights.pt").write_bytes(b"x")
    assert "must end in .npz, .keras, .h5 or .weights.h5, received '.pt'" in _refused(
        tmp_path / "weights.pt"
    )


@pytest.mark.parametrize("suffix", [".npz", ".keras", ".h5", ".weights.h5"])
def test_a_truncated_file(suffix: str, tmp_path: Path) -> None:
    (tmp_path / f"whole{suffix}").write_bytes(_tiny_file(tmp_path).read_bytes()[:2000])
    assert "is not a readable" in _refused(tmp_path / f"whole{suffix}")


def test_another_width(tmp_path: Path) -> None:
    text = _refused(_tiny_file(tmp_path), width=2.0)
    assert "does not fit tiny: " in text
    assert (
        "must have shape (3, 3, 3, 16), received (3, 3, 3, 8); check the backbone's width" in text
    )


def test_another_width_in_h5(tmp_path: Path) -> None:
    path = _save(create_backbone("tiny", _SHAPE), tmp_path / "tiny.weights.h5")
    assert "does not fit tiny (" in _refused(path, width=2.0)


@pytest.mark.parametrize("suffix", [".npz", ".weights.h5"])
def test_another_network(suffix: str, tmp_path: Path) -> None:
    path = _save(create_backbone("tiny", _SHAPE), tmp_path / f"tiny{suffix}")
    text = _refused(path, "tiny_vit")
    assert "does not fit tiny_vit: " in text
    assert "are missing" in text
    assert "are unknown" in text


def test_an_array_too_many(tmp_path: Path) -> None:
    path = _tiny_file(tmp_path, **{"other/kernel": np.zeros(3)})
    assert "1 are unknown ['other/kernel']" in _refused(path)


def test_nan(tmp_path: Path) -> None:
    path = _tiny_file(tmp_path, **{"block_2_pointwise_norm/beta": np.full(16, np.nan)})
    assert "holds NaN or infinite values in block_2_pointwise_norm/beta" in _refused(path)


def test_an_h5_without_layer_names(tmp_path: Path) -> None:
    import h5py

    path = _save(create_backbone("tiny", _SHAPE), tmp_path / "tiny.weights.h5")
    with h5py.File(path, "r+") as file:
        for group in file["layers"].values():
            del group["vars"].attrs["name"]
    assert "names no layers" in _refused(path)


def test_imagenet_that_cannot_be_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **options: Any) -> None:
        raise Exception("URL fetch failure on\nhttps://storage.googleapis.com/x")

    monkeypatch.setattr(importlib.import_module("keras.src.utils.file_utils"), "get_file", fail)
    text = _refused("imagenet", "mobilenet_v2")
    assert "ImageNet weights could not be downloaded (URL fetch failure on https://" in text
    assert "--weights FILE" in text


@pytest.mark.parametrize(
    ("name", "width", "text"),
    [
        ("mobilenet_v3_small", 0.5, "at width 0.5; widths with such weights: 0.75, 1.0; give"),
        ("yolo12_n", 1.0, "yolo12_n has no ImageNet weights at width 1.0; give a local file"),
        ("tiny", 1.0, "tiny has no ImageNet weights"),
    ],
)
def test_imagenet_where_there_are_no_such_weights(name: str, width: float, text: str) -> None:
    assert text in _refused("imagenet", name, width=width)
