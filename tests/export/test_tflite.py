"""The converter: what it refuses, and the bytes it saves."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edgeheads.errors import EdgeheadsError, RuntimeFailureError
from edgeheads.export.compact import compact
from edgeheads.runtime import DeviceSession

pytest.importorskip("tensorflow")
keras = pytest.importorskip("keras")

from edgeheads.export.tflite import convert_to_tflite  # noqa: E402

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import TinyModels


def graph() -> tuple[object, dict[str, object]]:
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, padding="same", use_bias=False)(image)
    x = keras.layers.ReLU(6.0)(keras.layers.BatchNormalization()(x))
    return image, {"b": keras.layers.Conv2D(1, 1)(x), "a": keras.layers.Conv2D(2, 1)(x)}


def images(value: float | None = None, count: int = 4) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(0)
    for _ in range(count):
        yield (
            rng.random((1, 8, 8, 3), np.float32)
            if value is None
            else np.full((1, 8, 8, 3), value, np.float32)
        )


@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
def test_outputs_keep_names_and_values(precision: str, tmp_path: Path) -> None:
    image, outputs = graph()
    (tmp_path / "m.tflite").write_bytes(convert_to_tflite(image, outputs, precision, images))
    x = next(images())
    expected = keras.Model(image, outputs).predict(x, verbose=0)
    with DeviceSession() as session:
        facts = session.inspect(tmp_path / "m.tflite")
        [tensor] = facts["inputs"]
        stored = x
        if precision == "int8":
            stored = np.round(x / tensor["scale"] + tensor["zero_point"]).clip(-128, 127)
        found = session.predict(tmp_path / "m.tflite", {"image": stored.astype(tensor["dtype"])})
    assert {one["name"] for one in facts["outputs"]} == {"a", "b"}
    for one in facts["outputs"]:
        real = found[one["name"]].astype(np.float32)
        if precision == "int8":
            real = (real - one["zero_point"]) * one["scale"]
        tolerance = {"float32": 1e-5, "float16": 5e-3, "int8": 0.05}[precision]
        np.testing.assert_allclose(real, expected[one["name"]], atol=tolerance)


@pytest.mark.parametrize(
    ("calibration", "words"),
    [
        (lambda: images(float("nan")), "calibration image 0 must be finite .* with NaN"),
        (lambda: images(0.5), "the 4 calibration images are all one colour"),
        (lambda: iter([np.zeros((1, 4, 4, 3))]), r"of shape \(1, 8, 8, 3\), received shape \(1, 4"),
        (lambda: iter([]), "all one colour|calibration"),
        (None, "int8 needs calibration images, received none"),
    ],
)
def test_calibration_that_measures_nothing(calibration: object, words: str) -> None:
    with pytest.raises(EdgeheadsError, match=words):
        convert_to_tflite(*graph(), "int8", calibration)  # type: ignore[arg-type]


def test_calibration_is_read_one_by_one() -> None:
    alive = 0
    peak = 0

    def counted() -> Iterator[np.ndarray]:
        nonlocal alive, peak
        for array in images(count=50):
            alive += 1
            peak = max(peak, alive)
            yield array
            alive -= 1

    convert_to_tflite(*graph(), "int8", counted)
    assert peak == 1


def test_unknown_precision() -> None:
    with pytest.raises(
        EdgeheadsError, match="unknown quantization scheme 'int4'; did you mean int8"
    ):
        convert_to_tflite(*graph(), "int4", images)


def test_open_size_is_refused() -> None:
    image = keras.Input((None, None, 3))
    with pytest.raises(EdgeheadsError, match=r"needs a fixed input size, received \(None, None"):
        convert_to_tflite(image, {"a": keras.layers.Conv2D(1, 1)(image)}, "float32")


def test_operator_that_is_not_built_in_is_named() -> None:
    """Flex operators would need another, larger runtime on the device."""
    image = keras.Input((8, 8, 3))
    with pytest.raises(RuntimeFailureError, match=r"the converter refuses this graph as float32: "):
        convert_to_tflite(image, {"a": keras.ops.erfinv(image)}, "float32")


@pytest.mark.parametrize("name", ["float32", "int8", "split"])
def test_compact_file_computes_the_same(name: str, tiny_models: TinyModels, tmp_path: Path) -> None:
    path = getattr(tiny_models, name)
    small = compact(path.read_bytes())
    (tmp_path / "m.tflite").write_bytes(small)
    assert len(small) < path.stat().st_size
    with DeviceSession() as session:
        [tensor] = session.inspect(path)["inputs"]
        rng = np.random.default_rng(0)
        x = (rng.random((3, 8, 8, 3)) * 100).astype(tensor["dtype"])
        before, after = (session.predict(p, {"image": x}) for p in (path, tmp_path / "m.tflite"))
        facts = [session.inspect(p) for p in (path, tmp_path / "m.tflite")]
    for output in before:
        np.testing.assert_array_equal(before[output], after[output])
    for key in ("inputs", "outputs", "ops", "signature"):
        assert facts[0][key] == facts[1][key]


@pytest.mark.parametrize("name", ["float32", "int8"])
def test_compact_constants_stay_aligned(name: str, tiny_models: TinyModels) -> None:
    """A reader maps them in place; the schema promises 16 bytes."""
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
    small = compact(getattr(tiny_models, name).read_bytes())
    model = schema.Model.GetRootAs(small, 0)
    base = np.frombuffer(small, np.uint8).ctypes.data
    found = 0
    for index in range(model.BuffersLength()):
        data = model.Buffers(index).DataAsNumpy()
        if isinstance(data, np.ndarray) and data.size:
            assert (data.ctypes.data - base) % 16 == 0
            found += 1
    assert found >= 4


def test_compact_twice_changes_nothing_more(tiny_models: TinyModels) -> None:
    once = compact(tiny_models.int8.read_bytes())
    assert compact(once) == once
    assert re.search(rb"functional|conv2d", once) is None


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (
            lambda x: keras.layers.AdaptiveAveragePooling2D(1)(x),
            r"cannot follow AdaptiveAveragePooling2D \(Negative dimension size .* from 8\); build",
        ),
        (
            lambda x: keras.ops.corrcoef(keras.ops.reshape(x, (4, 48))),
            r"cannot follow Corrcoef \(Using a symbolic `tf.Tensor` as .* is not allowed\); build",
        ),
        (
            lambda x: keras.ops.image.elastic_transform(x),
            "a state outside of the model's weights, seed_generator_state.*; leave it out",
        ),
    ],
)
def test_what_cannot_be_traced_is_refused(layer: Callable[[Any], Any], words: str) -> None:
    image = keras.Input((8, 8, 3))
    with pytest.raises(RuntimeFailureError, match=words):
        convert_to_tflite(image, {"out": layer(image)}, "float32")
