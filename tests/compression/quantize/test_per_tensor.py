"""One scale for each kernel: neighbouring layers are equalized, in every file of a Keras graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edgeheads.contract import scale_pixels
from edgeheads.device import load_device
from edgeheads.errors import EdgeheadsError
from edgeheads.export.compact import compact
from edgeheads.export.flatgraph import FlatGraph

keras = pytest.importorskip("keras")
pytest.importorskip("tensorflow")

from conftest import QUICK_BENCH  # noqa: E402
from edgeheads.compression.equalization import equalized_graph  # noqa: E402
from edgeheads.compression.quantize.quantizer import quantize_with_images  # noqa: E402
from edgeheads.compression.quantize.run import QuantizeOptions, quantize_file  # noqa: E402
from edgeheads.compression.quantize.schemes import get_scheme  # noqa: E402
from edgeheads.compression.sensitivity.errors import output_sqnr  # noqa: E402
from edgeheads.compression.sensitivity.run import find_sensitivity  # noqa: E402
from edgeheads.convert import convert  # noqa: E402
from edgeheads.edge_model import file_outputs  # noqa: E402
from edgeheads.export.tflite import convert_to_float_tflite, convert_to_tflite  # noqa: E402
from edgeheads.tasks import get_task  # noqa: E402

if TYPE_CHECKING:
    from edgeheads.convert import ConvertResult

layers = keras.layers

_SPREAD = np.logspace(-1.5, 1.5, 8)


def _images() -> Iterator[np.ndarray]:
    rng = np.random.default_rng(0)
    for _ in range(8):
        yield rng.random((1, 12, 12, 3), np.float32)


def _uneven() -> Any:
    """A small network whose channels differ 1000 times, and nothing of it is negligible."""
    keras.utils.set_random_seed(0)
    image = keras.Input((12, 12, 3))
    x = layers.Conv2D(8, 3, use_bias=False)(image)
    x = layers.ReLU(6.0)(layers.BatchNormalization(name="norm")(x))
    x = layers.Conv2D(8, 1, activation="relu", name="behind")(x)
    model = keras.Model(image, {"a": layers.Conv2D(2, 1)(x)})
    _make_uneven(model, "norm", "behind")
    return model


def _make_uneven(model: Any, norm: str, behind: str) -> None:
    """Scale channels in front of a ReLU6, and undo it behind: the function stays."""
    gamma, beta, mean, variance = model.get_layer(norm).get_weights()
    scale = np.logspace(-3, 0, gamma.size)
    model.get_layer(norm).set_weights([gamma * scale, beta * scale, mean, variance])
    kernel, *bias = model.get_layer(behind).get_weights()
    model.get_layer(behind).set_weights([kernel / scale[:, None], *bias])


def _graph(model: Any) -> tuple[Any, dict[str, Any]]:
    return model.inputs[0], dict(model.output)


def test_channels_of_unlike_ranges_survive_one_scale() -> None:
    """Without equalization the small channels are rounded to zero."""
    graph = _graph(_uneven())
    float_model = convert_to_float_tflite(*graph)
    as_they_are = quantize_with_images(float_model, get_scheme("int8"), _images, per_channel=False)
    equalized = convert_to_tflite(*graph, "int8", _images, per_channel=False)
    assert output_sqnr(float_model, as_they_are, _images) < 10
    assert output_sqnr(float_model, equalized, _images) > 30


def test_a_scale_for_each_channel_needs_none() -> None:
    """That file is what the quantizer makes of the graph as it is, byte for byte."""
    graph = _graph(_uneven())
    expected = quantize_with_images(convert_to_float_tflite(*graph), get_scheme("int8"), _images)
    assert convert_to_tflite(*graph, "int8", _images) == compact(expected)


class Forgetful(keras.layers.Layer):
    """Takes an option that its configuration does not have."""

    def __init__(self, factor: float, **options: Any) -> None:
        super().__init__(**options)
        self.factor = factor

    def call(self, inputs: Any) -> Any:
        return inputs * self.factor

    def get_config(self) -> dict[str, Any]:
        return keras.layers.Layer.get_config(self)


class Careless(Forgetful):
    """Its copy multiplies by another factor."""

    def __init__(self, factor: float = 2.0, **options: Any) -> None:
        super().__init__(factor, **options)


@pytest.mark.parametrize(
    "last",
    [layers.ReLU, lambda: Forgetful(3.0), lambda: Careless(3.0)],
    ids=["nothing", "no copy", "another copy"],
)
def test_what_cannot_be_equalized_stays(last: Callable[[], Any]) -> None:
    """Nothing to equalize, a layer that cannot be copied, and one whose copy is another."""
    keras.utils.set_random_seed(0)
    image = keras.Input((12, 12, 3))
    x = layers.Conv2D(4, 3, activation="relu")(image)
    if last is not layers.ReLU:
        x = layers.Conv2D(4, 1)(x)
    outputs = {"a": last()(x)}
    assert equalized_graph(image, outputs, _images) == (image, outputs)
    expected = quantize_with_images(
        convert_to_float_tflite(image, outputs), get_scheme("int8"), _images, per_channel=False
    )
    found = convert_to_tflite(image, outputs, "int8", _images, per_channel=False)
    assert found == compact(expected)


def test_images_that_cannot_be_used_are_refused_as_ever() -> None:
    """Equalization looks at them first, and leaves the words to the calibration."""
    graph = _graph(_uneven())
    wrong = np.zeros((1, 9, 9, 3), np.float32)
    nan = np.full((1, 12, 12, 3), np.nan, np.float32)
    for one, words in ((wrong, r"of shape \(1, 12, 12, 3\)"), (nan, "must be finite")):
        with pytest.raises(EdgeheadsError, match=words):
            convert_to_tflite(*graph, "int8", lambda one=one: [one], per_channel=False)


def test_quantizing_a_keras_file(tmp_path: Path) -> None:
    """The report's reference is the file as it is, not the equalized one."""
    _uneven().save(tmp_path / "net.keras")
    np.savez(tmp_path / "x.npz", x=np.concatenate(list(_images())))
    result = quantize_file(
        tmp_path / "net.keras",
        tmp_path / "net.tflite",
        QuantizeOptions(per_channel=False),
        data=tmp_path / "x.npz",
    )
    ratio = result.files["int8"].sqnr_db
    assert ratio is not None
    assert ratio > 30
    float_model = convert_to_float_tflite(*_graph(_uneven()))
    written = (tmp_path / "net.tflite").read_bytes()
    assert output_sqnr(float_model, written, _images) == pytest.approx(ratio, abs=1e-3)


@pytest.fixture
def uneven_model(converted: ConvertResult, tmp_path: Path) -> Path:
    """A trained model whose decoder was made uneven."""
    model = keras.saving.load_model(converted.model_path, compile=False)
    for level in range(3):
        name = f"depth_decoder_{level}_conv"
        _make_uneven(model, f"{name}_depthwise_norm", f"{name}_conv")
    model.save(tmp_path / "uneven.keras")
    return tmp_path / "uneven.keras"


def _zeros(content: bytes) -> float:
    """Return the share of zeros in the kernel of a convolution that has the most."""
    graph = FlatGraph(content)
    return max(
        float(np.mean(graph.constant(int(one.inputs[1])) == 0))
        for one in graph.operations
        if graph.kind(one) == "CONV_2D"
    )


@pytest.mark.slow
@pytest.mark.parametrize("max_drop", [None, 1000.0], ids=["plain", "mixed"])
def test_a_bundle_for_a_device_of_one_scale(
    max_drop: float | None, converted: ConvertResult, uneven_model: Path, tmp_path: Path
) -> None:
    """What verification compares with is the model that was given, not the equalized one."""
    (tmp_path / "board.yaml").write_text("quantization:\n  weights: per-tensor\n")
    recipe = converted.recipe.with_values(
        **{"export.precisions": ["int8"], "export.max_drop": max_drop}
    )
    found = convert(
        recipe,
        tmp_path / "run",
        model_file=uneven_model,
        profile=load_device(tmp_path / "board.yaml"),
        bench_settings=QUICK_BENCH,
    )
    assert [one for one in found.checks["int8"] if not one.passed] == []
    bundle = found.bundles["int8"]
    assert _zeros(bundle.model_path.read_bytes()) < 0.15
    model = keras.saving.load_model(uneven_model, compile=False)
    outputs = file_outputs(get_task(recipe.task, recipe.head.options))(model)
    golden, image = bundle.golden(), bundle.contract.image
    expected = keras.Model(model.inputs[0], outputs)(
        scale_pixels(golden["images"], image.scale, image.offset), training=False
    )
    for name, array in expected.items():
        np.testing.assert_allclose(golden[f"reference/{name}"], array, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_sensitivity_of_one_scale(converted: ConvertResult, uneven_model: Path) -> None:
    """The layers it tells of, and the file within a budget, are those of the equalized model."""
    found = find_sensitivity(
        uneven_model, converted.recipe, samples=4, max_drop=1000.0, per_channel=False
    )
    assert found.mixed is not None
    assert found.mixed.kept == ()
    assert _zeros(found.mixed.content) < 0.15
