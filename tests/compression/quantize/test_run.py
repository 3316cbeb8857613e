"""From a Keras file and pictures to a .tflite file: what is made, refused, and left alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edgeheads.errors import EdgeheadsError, RuntimeFailureError

keras = pytest.importorskip("keras")
pytest.importorskip("tensorflow")

from edgeheads.compression.quantize.inputs import read_inputs, scaled_range  # noqa: E402
from edgeheads.compression.quantize.run import (  # noqa: E402
    FileReport,
    QuantizeOptions,
    quantize_file,
)
from edgeheads.export.flatgraph import FlatGraph  # noqa: E402
from edgeheads.export.tflite import convert_to_float_tflite  # noqa: E402


def _save(path: Path, channels: int = 3, rescaling: bool = True) -> keras.Model:
    keras.utils.set_random_seed(0)
    image = keras.Input((16, 16, channels))
    x = keras.layers.Rescaling(1 / 127.5, offset=-1.0)(image) if rescaling else image
    x = keras.layers.Conv2D(8, 3, activation="relu")(x)
    vector = keras.layers.Dense(4, name="vector")(keras.layers.GlobalAveragePooling2D()(x))
    model = keras.Model(image, [vector, keras.layers.Conv2D(2, 1, name="map")(x)])
    model.save(path)
    return model


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    _save(tmp_path / "net.keras")
    return tmp_path / "net.keras"


def _pictures(folder: Path, count: int = 4) -> Path:
    image_module = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(0)
    for index in range(count):
        file = folder / ("cat", "dog")[index % 2] / f"{index}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        image_module.fromarray(rng.integers(0, 256, (20, 24, 3), np.uint8)).save(file)
    return folder


def test_a_file_and_what_it_lost(model_file: Path, tmp_path: Path) -> None:
    before = model_file.read_bytes()
    out = tmp_path / "new" / "net.tflite"
    options = QuantizeOptions("int8-uint8-io", compare=True)
    result = quantize_file(model_file, out, options, data=_pictures(tmp_path / "data"))
    assert model_file.read_bytes() == before
    graph = FlatGraph(out.read_bytes())
    assert [graph.dtype(one) for one in (*graph.inputs, *graph.outputs)] == ["uint8"] * 3
    assert list(result.files) == ["float32", "plain converter", "int8-uint8-io"]
    assert result.files["int8-uint8-io"].size_bytes == out.stat().st_size
    assert result.files["int8-uint8-io"].sqnr_db > 25
    assert result.compared == 4
    assert result.doctor.errors == ()
    content = json.loads(json.dumps(result.as_json(), allow_nan=False))
    assert content["files"]["float32"]["sqnr_db"] is None
    # Nothing but the file: no draft stays behind.
    assert [one.name for one in out.parent.iterdir()] == ["net.tflite"]


def test_a_scheme_without_calibration_needs_no_data(model_file: Path, tmp_path: Path) -> None:
    result = quantize_file(model_file, tmp_path / "o.tflite", QuantizeOptions("dynamic"))
    assert result.doctor is None
    assert result.files["dynamic"] == FileReport((tmp_path / "o.tflite").stat().st_size)


def test_a_sequential_model(tmp_path: Path) -> None:
    layers = [keras.Input((8, 8, 1)), keras.layers.Conv2D(4, 3), keras.layers.BatchNormalization()]
    keras.Sequential(layers).save(tmp_path / "s.keras")
    np.savez(tmp_path / "x.npz", x=np.random.default_rng(0).random((3, 8, 8, 1)))
    out = tmp_path / "o.tflite"
    result = quantize_file(
        tmp_path / "s.keras", out, QuantizeOptions("int16x8"), data=tmp_path / "x.npz"
    )
    assert result.files["int16x8"].sqnr_db > 30


def test_the_doctor_alone_makes_no_file(model_file: Path, tmp_path: Path) -> None:
    data = _pictures(tmp_path / "data", 1)
    options = QuantizeOptions(only_diagnose=True)
    result = quantize_file(model_file, tmp_path / "o.tflite", options, data=data)
    assert [one.text for one in result.doctor.errors] == ["there is one image"]
    assert not (tmp_path / "o.tflite").exists()
    with pytest.raises(EdgeheadsError, match=r"^calibration images, count: there is one image;"):
        quantize_file(model_file, tmp_path / "o.tflite", QuantizeOptions(), data=data)
    assert not (tmp_path / "o.tflite").exists()


def test_arrays_that_measure_nothing(model_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "o.tflite"
    for values, words in (
        (np.full((4, 16, 16, 3), np.nan), "4 of 4 images hold NaN or infinite values: 0, 1, 2, 3"),
        (np.full((4, 16, 16, 3), 7.0), "constant: each of the 1 images|all 4 are one image"),
        (np.random.default_rng(0).random((4, 16, 16, 3)) * 999, "the model was trained with 0 to"),
    ):
        np.savez(tmp_path / "x.npz", x=values)
        with pytest.raises(EdgeheadsError, match=words):
            quantize_file(model_file, out, QuantizeOptions(), data=tmp_path / "x.npz")
    assert not out.exists()


def test_requests_that_cannot_work(model_file: Path, tmp_path: Path) -> None:
    with pytest.raises(EdgeheadsError, match=r"would replace the model; choose another file"):
        quantize_file(model_file, model_file, QuantizeOptions())
    with pytest.raises(EdgeheadsError, match=r"int8 is calibrated .* with --data DIR, or name"):
        quantize_file(model_file, tmp_path / "o", QuantizeOptions())
    with pytest.raises(EdgeheadsError, match="for schemes of integers, received float16"):
        QuantizeOptions("float16", per_channel=False)
    with pytest.raises(EdgeheadsError, match="unknown calibration method 'max'; did you mean min"):
        QuantizeOptions(calibration="max")
    (tmp_path / "file").touch()
    with pytest.raises(EdgeheadsError, match=r"cannot write .*choose another file with --out"):
        quantize_file(model_file, tmp_path / "file" / "o", QuantizeOptions("float16"))


def test_models_that_cannot_work(tmp_path: Path) -> None:
    path = tmp_path / "m.keras"

    class Unheard(keras.layers.Layer):
        def call(self, x: object) -> object:
            return x

    image = keras.Input((8, 8, 3))
    keras.Model(image, Unheard()(image)).save(path)
    with pytest.raises(EdgeheadsError, match=r"has layers of its own, Unheard, which are not in"):
        quantize_file(path, tmp_path / "o", QuantizeOptions("float16"))
    keras.Model([image, keras.Input((8, 8, 3))], keras.layers.ReLU()(image)).save(path)
    with pytest.raises(EdgeheadsError, match=r"take one image of a fixed size .* received inputs"):
        quantize_file(path, tmp_path / "o", QuantizeOptions("float16"))
    keras.Model(image, keras.ops.erfinv(image)).save(path)
    with pytest.raises(RuntimeFailureError, match="the converter refuses this graph as float32"):
        quantize_file(path, tmp_path / "o", QuantizeOptions("float16"))


def test_pictures_become_inputs(tmp_path: Path) -> None:
    """Spread over the source, resized, scaled, and labelled by their folders."""
    model = _save(tmp_path / "m.keras")
    found = read_inputs(model, _pictures(tmp_path / "data", 6), most=3)
    images = list(found.images())
    assert found.count == len(images) == 3
    assert (found.classes, found.expected) == (("cat", "dog"), (0.0, 255.0))
    assert images[0].shape == (1, 16, 16, 3)
    signed = read_inputs(model, tmp_path / "data", scaling="signed", most=3)
    np.testing.assert_allclose(next(iter(signed.images())), images[0] / 127.5 - 1, atol=1e-6)
    assert signed.expected == pytest.approx((-1, 1))
    grey = _save(tmp_path / "grey.keras", channels=1)
    [first, *_] = read_inputs(grey, tmp_path / "data", most=3).images()
    luma = images[0] @ np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(first[..., 0], luma, atol=0.51)


def test_the_range_of_scaled_pixels() -> None:
    from edgeheads.backbones.base import InputScaling

    scaling = InputScaling((1 / 255, 2 / 255, 1 / 255), (0.0, -1.0, 0.5))
    assert scaled_range(scaling) == pytest.approx((-1.0, 1.5))


def test_sources_that_cannot_work(tmp_path: Path) -> None:
    model = _save(tmp_path / "m.keras", rescaling=False)
    (tmp_path / "empty").mkdir()
    np.savez(tmp_path / "y.npz", y=np.zeros(3))
    np.savez(tmp_path / "x.npz", x=np.zeros((2, 8, 8, 3)))
    for name, scaling, words in (
        ("none", None, "none does not exist; expected a folder of pictures, or an .npz"),
        ("empty", None, r"empty holds no pictures; expected .jpg"),
        ("y.npz", None, r"y.npz cannot be read .*x is not a file"),
        ("x.npz", None, r"x of shape \(N, 16, 16, 3\), received \(2, 8, 8, 3\) of float64"),
        ("x.npz", "unit", "--scaling unit is for pictures"),
        ("data", None, "nothing says how pixels become the model's inputs; add --scaling pixels"),
        ("data", "sined", "unknown scaling 'sined'; did you mean signed?"),
    ):
        _pictures(tmp_path / "data")
        with pytest.raises(EdgeheadsError, match=words):
            read_inputs(model, tmp_path / name, scaling=scaling)


def test_a_float_tflite_file_becomes_what_its_keras_model_does(tmp_path: Path) -> None:
    """To the byte: the same ranges, the same quantizer. What is no float file is told so."""
    model = _save(tmp_path / "net.keras", rescaling=False)
    outputs = dict(zip(model.output_names, model.outputs, strict=True))
    flat = tmp_path / "net.tflite"
    flat.write_bytes(convert_to_float_tflite(model.inputs[0], outputs))
    before = flat.read_bytes()
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "x.npz", x=rng.normal(size=(6, 16, 16, 3)).astype(np.float32))
    data = tmp_path / "x.npz"
    made = quantize_file(flat, tmp_path / "flat8.tflite", QuantizeOptions(), data=data)
    quantize_file(tmp_path / "net.keras", tmp_path / "net8.tflite", QuantizeOptions(), data=data)
    assert (tmp_path / "flat8.tflite").read_bytes() == (tmp_path / "net8.tflite").read_bytes()
    assert flat.read_bytes() == before
    assert made.files["int8"].sqnr_db is not None
    assert made.files["int8"].sqnr_db > 25
    refused = (
        (
            tmp_path / "flat8.tflite",
            "int8",
            data,
            "must be float32 throughout, received input int8",
        ),
        (data.rename(tmp_path / "no.tflite"), "int8", flat, "is no .tflite file with one graph"),
        (flat, "dynamic", data, "can become int8, .*, received dynamic"),
        (flat, "int8", None, "give them with --data DIR"),
    )
    for file, scheme, source, words in refused:
        with pytest.raises(EdgeheadsError, match=words):
            quantize_file(file, tmp_path / "o.tflite", QuantizeOptions(scheme), data=source)
    assert not (tmp_path / "o.tflite").exists()
