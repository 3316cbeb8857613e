from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgeheads.errors import EdgeheadsError

keras = pytest.importorskip("keras")

from edgeheads import build_model  # noqa: E402
from edgeheads.backbones import Backbone, InputScaling, create_backbone  # noqa: E402
from edgeheads.backbones.base import Level  # noqa: E402


def _own_model(size: tuple[int | None, int | None] = (64, 96)) -> keras.Model:
    image = keras.Input((*size, 3))
    x = keras.layers.Conv2D(4, 3, strides=4, padding="same", name="a")(image)
    y = keras.layers.Conv2D(6, 3, strides=2, padding="same", name="b")(x)
    twin = keras.layers.Conv2D(6, 1, name="twin")(y)
    pooled = keras.layers.GlobalAveragePooling2D(name="pooled")(twin)
    return keras.Model(image, pooled, name="own")


def _own_tokens(prefix: int = 2) -> keras.Model:
    image = keras.Input((48, 32, 3))
    x = keras.layers.Conv2D(8, 8, strides=8, name="patches")(image)
    x = keras.layers.Reshape((24, 8), name="flat")(x)
    x = keras.layers.ZeroPadding1D((prefix, 0), name="padded")(x)
    return keras.Model(image, x)


def test_layers_become_levels_by_their_stride() -> None:
    model = _own_model()
    backbone = Backbone.from_model(model, ["a", "b"], scaling=InputScaling.uniform(1 / 255))
    assert backbone.pyramid == {"P2": Level(4, 4), "P3": Level(8, 6)}
    assert backbone.name == "own"
    assert backbone.get_layer("a") is model.get_layer("a")


def test_levels_can_be_named() -> None:
    backbone = Backbone.from_model(_own_model(), {"P3": "b", "other": "twin"})
    assert backbone.pyramid == {"P3": Level(8, 6), "other": Level(8, 6)}


def test_tokens_declare_their_grid(tmp_path: Path) -> None:
    backbone = Backbone.from_model(_own_tokens(), ["padded"], patch_size=8)
    level = backbone.pyramid["tokens"]
    assert level == Level(8, 8, grid=(6, 4), prefix_tokens=2)
    assert level.tokens
    assert not Level(8, 8).tokens
    backbone.save(tmp_path / "tokens.keras")
    assert keras.saving.load_model(tmp_path / "tokens.keras").pyramid == backbone.pyramid


def test_tokens_need_a_patch_size_that_fits() -> None:
    with pytest.raises(EdgeheadsError, match="pass patch_size"):
        Backbone.from_model(_own_tokens(), ["padded"])
    with pytest.raises(EdgeheadsError, match="at least 12x8 tokens of patch size 4"):
        Backbone.from_model(_own_tokens(), ["padded"], patch_size=4)


@pytest.mark.parametrize(
    ("layers", "text"),
    [
        (["c"], "unknown layer 'c'"),
        (["pooled"], r"must return a map \[B, H, W, C\] or tokens"),
        (["b", "twin"], "a stride of its own"),
        ({"P2": "b"}, "level 'P2' of stride 4 must be 16x24"),
    ],
)
def test_layers_that_make_no_pyramid_are_refused(
    layers: list[str] | dict[str, str], text: str
) -> None:
    with pytest.raises(EdgeheadsError, match=text):
        Backbone.from_model(_own_model(), layers)


def test_an_open_input_size_is_refused() -> None:
    with pytest.raises(EdgeheadsError, match="fixed input size"):
        Backbone.from_model(_own_model((None, None)), ["a"])


@pytest.mark.parametrize(
    ("size", "map_size", "stride"), [(100, 4, 32), (100, 7, 16), (518, 37, 14), (224, 111, 2)]
)
def test_strides_are_told_from_sizes(size: int, map_size: int, stride: int) -> None:
    from edgeheads.backbones.base import _stride_of_map

    assert _stride_of_map(size, map_size) == stride


@pytest.mark.slow
def test_a_model_on_any_of_them_loads_without_edgeheads(tmp_path: Path) -> None:
    """The graph is flat and of stock layers; a separate process proves it."""
    images = np.random.default_rng(0).uniform(-1, 1, (1, 64, 64, 3)).astype("float32")
    np.save(tmp_path / "images.npy", images)
    names = ["tiny", "mobilenet_v3_small_minimalistic", "yolo12_n"]
    for name in names:
        model = build_model(create_backbone(name, (64, 64, 3)), "depth")
        model.save(tmp_path / f"{name}.keras")
        np.save(tmp_path / f"{name}.npy", np.asarray(model(images, training=False)["depth"]))
    code = f"""
import sys
sys.modules["edgeheads"] = None
import keras, numpy as np
images = np.load("images.npy")
for name in {names}:
    model = keras.saving.load_model(name + ".keras")
    depth = np.asarray(model(images, training=False)["depth"])
    np.testing.assert_array_equal(depth, np.load(name + ".npy"))
"""
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr[-2000:]
