"""Models that Keras 2 or Keras 3 saved as .h5."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

keras = pytest.importorskip("keras")
pytest.importorskip("tensorflow")
tf_keras = pytest.importorskip("tf_keras")

from edgeheads.compression.legacy import load_any, load_legacy  # noqa: E402
from edgeheads.compression.macs import count_macs  # noqa: E402
from edgeheads.compression.prune.structured import prune_channels  # noqa: E402
from edgeheads.errors import EdgeheadsError  # noqa: E402

L = tf_keras.layers


def saved(model: Any, path: Path) -> Path:
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, L.BatchNormalization):
            layer.set_weights([rng.uniform(0.5, 1.5, w.shape) for w in layer.get_weights()])
    model.save(path, save_format="h5")
    return path


def small() -> Any:
    image = tf_keras.Input((16, 16, 3), name="image")
    x = L.Conv2D(16, 3, strides=2, padding="same", use_bias=False, name="conv")(image)
    x = y = L.ReLU(6.0)(L.BatchNormalization(name="norm")(x))
    gate = L.ReLU(6.0)(L.GlobalAveragePooling2D(keepdims=True)(x) + 3.0) * (1.0 / 6.0)
    x = L.DepthwiseConv2D(3, padding="same", name="depth")(L.Multiply()([x, gate]))
    x = L.Add()([L.Conv2D(16, 1, name="point")(x), y]) - y
    x = L.Dropout(0.1)(L.Flatten()(L.MaxPooling2D()(x)))
    return tf_keras.Model(image, L.Dense(3, activation="softmax", name="out")(x), name="small")


def test_a_keras_2_model_computes_the_same_in_keras_3_and_is_pruned(tmp_path: Path) -> None:
    old = small()
    model = load_any(saved(old, tmp_path / "old.h5"))
    assert isinstance(model, keras.Model)
    assert model.name == "small"
    image = np.random.default_rng(1).normal(size=(2, 16, 16, 3)).astype("float32")
    expected = old.predict(image, verbose=0)
    np.testing.assert_allclose(model.predict(image, verbose=0), expected, atol=1e-5)
    pruned = prune_channels(model, "macs=0.6")
    assert count_macs(pruned.model) <= 0.6 * count_macs(model)
    pruned.model.save(tmp_path / "new.keras")
    assert keras.saving.load_model(tmp_path / "new.keras").output.shape == (None, 3)


def test_sequential_and_shared_layers(tmp_path: Path) -> None:
    plain = tf_keras.Sequential([L.Conv2D(4, 3, input_shape=(8, 8, 3)), L.ReLU(), L.Flatten()])
    assert load_legacy(saved(plain, tmp_path / "plain.h5")).output.shape == (None, 144)
    one, two = tf_keras.Input((8, 8, 3)), tf_keras.Input((8, 8, 3))
    conv = L.Conv2D(4, 3, name="shared")
    old = tf_keras.Model([one, two], L.Concatenate()([conv(one), conv(two)]))
    model = load_legacy(saved(old, tmp_path / "shared.h5"))
    assert [layer.name for layer in model.layers].count("shared") == 1


def test_what_cannot_be_loaded(tmp_path: Path) -> None:
    with pytest.raises(EdgeheadsError, match=r"does not exist; give a .keras or .h5 file"):
        load_any(tmp_path / "none.h5")
    (tmp_path / "text.h5").write_text("text")
    with pytest.raises(EdgeheadsError, match=r"text.h5 is no HDF5 file .*; expected a .keras or"):
        load_any(tmp_path / "text.h5")
    image = tf_keras.Input((8, 8, 3))
    unknown = tf_keras.Model(image, image**2.0)
    with pytest.raises(EdgeheadsError, match=r"calls tf.math.pow between its layers in a way"):
        load_any(saved(unknown, tmp_path / "pow.h5"))
    local = tf_keras.Model(image, L.LocallyConnected2D(2, 3, name="local")(image))
    with pytest.raises(EdgeheadsError, match=r"'local' of type LocallyConnected2D, which Keras 3"):
        load_any(saved(local, tmp_path / "local.h5"))


def test_keras_3_saved_as_h5(tmp_path: Path) -> None:
    image = keras.Input((8, 8, 3))
    x = keras.layers.BatchNormalization()(keras.layers.Conv2D(4, 3)(image))
    old = keras.Model(image, keras.layers.ReLU(6.0)(x), name="three")
    old.save(tmp_path / "three.h5")
    model = load_any(tmp_path / "three.h5")
    assert model.name == "three"
    pixels = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype("float32")
    np.testing.assert_array_equal(model.predict(pixels, verbose=0), old.predict(pixels, verbose=0))


def test_weights_alone_are_no_model(tmp_path: Path) -> None:
    three = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    three.save_weights(tmp_path / "three.weights.h5")
    two = tf_keras.Sequential([L.Dense(2, input_shape=(4,), name="dense")])
    two.save_weights(tmp_path / "two.h5")
    whole = r'; save the whole model, with model.save\("model.keras"\)'
    with pytest.raises(EdgeheadsError, match=r"holds no network, but layers, vars: it.*" + whole):
        load_any(tmp_path / "three.weights.h5")
    with pytest.raises(EdgeheadsError, match=r"holds no network, but dense, top_level.*" + whole):
        load_any(tmp_path / "two.h5")


@pytest.mark.parametrize("library", [keras, tf_keras])
def test_code_in_a_file_is_refused(library: Any, tmp_path: Path) -> None:
    layer = library.layers.Lambda(lambda x: x)
    library.Sequential([library.Input((4,)), layer]).save(tmp_path / "code.h5")
    with pytest.raises(EdgeheadsError, match=r"has a Lambda layer, which is Python code that"):
        load_any(tmp_path / "code.h5")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["MobileNetV2", "MobileNetV3Small"])
def test_networks_of_keras_2(name: str, tmp_path: Path) -> None:
    network = getattr(tf_keras.applications, name)
    old = network(weights=None, input_shape=(64, 64, 3), classes=7)
    model = load_legacy(saved(old, tmp_path / "old.h5"))
    pruned = prune_channels(model, "macs=0.5")
    assert pruned.macs[1] <= 0.5 * pruned.macs[0]
    assert pruned.model.predict(np.zeros((1, 64, 64, 3)), verbose=0).shape == (1, 7)
