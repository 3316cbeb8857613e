"""What int8 does to each layer, against ratios worked by hand."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest

keras = pytest.importorskip("keras")
pytest.importorskip("tensorflow")

from edgeheads.compression.quantize.mixed import BudgetError, mixed_precision  # noqa: E402
from edgeheads.compression.quantize.quantizer import quantize_with_images  # noqa: E402
from edgeheads.compression.quantize.schemes import get_scheme  # noqa: E402
from edgeheads.compression.sensitivity.errors import (  # noqa: E402
    LayerError,
    analyse,
    output_sqnr,
    sqnr,
)
from edgeheads.compression.sensitivity.layers import find_layers  # noqa: E402
from edgeheads.errors import EdgeheadsError  # noqa: E402
from edgeheads.export.flatgraph import FlatGraph  # noqa: E402
from edgeheads.export.tflite import convert_to_float_tflite  # noqa: E402


def _images() -> Iterator[np.ndarray]:
    rng = np.random.default_rng(0)
    for _ in range(8):
        yield rng.uniform(-1, 1, (1, 16, 16, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def hostile() -> bytes:
    """Three convolutions; one channel of the middle one is 3000 times larger than the others."""
    keras.utils.set_random_seed(0)
    image = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(8, 3, padding="same", activation="relu", name="first")(image)
    middle = keras.layers.Conv2D(8, 3, padding="same", name="hostile")
    x = middle(x)
    last = keras.layers.Conv2D(4, 1, name="last")
    out = last(x)
    kernel, bias = middle.get_weights()
    kernel[..., 0] *= 3000
    middle.set_weights([kernel, bias])
    kernel, bias = last.get_weights()
    kernel[:, :, 0] = 0  # what the large channel holds is never used
    last.set_weights([kernel, bias])
    return convert_to_float_tflite(image, {"out": out})


def test_sqnr_by_hand() -> None:
    """100 + 0 against an error of 1: 20 dB; no error is infinite; no signal is minus infinite."""
    assert sqnr(np.array([10.0, 0.0]), np.array([10.0, 1.0])) == pytest.approx(20)
    assert sqnr(np.array([3.0]), np.array([3.0])) == math.inf
    assert sqnr(np.array([0.0]), np.array([1.0])) == -math.inf


def test_macs_by_hand(hostile: bytes) -> None:
    """16 x 16 places, times channels out, times the kernel's places and channels in."""
    assert [layer.macs for layer in find_layers(hostile)] == [
        256 * 8 * 27,
        256 * 8 * 72,
        256 * 4 * 8,
    ]


def test_the_hostile_layer_is_found(hostile: bytes) -> None:
    """It and the one that reads it come first, though their weights lose as little as any."""
    first, middle, last = (layer.name for layer in find_layers(hostile))
    found = analyse(hostile, _images)
    assert {one.layer.name for one in found[:2]} == {middle, last}
    assert found[2].layer.name == first
    assert found[1].isolated < found[2].isolated - 10
    assert all(one.weights > 35 for one in found)


def test_an_infinite_ratio_is_null_in_json(hostile: bytes) -> None:
    """JSON has no infinity."""
    layer = find_layers(hostile)[0]
    assert LayerError(layer, math.inf, 30.0, 40.0).as_json() == {
        "name": layer.name,
        "kind": "CONV_2D",
        "macs": layer.macs,
        "accumulated": None,
        "isolated": 30.0,
        "weights": 40.0,
        "drop": None,
    }


def test_mixed_keeps_the_hostile_layer_float(hostile: bytes) -> None:
    """It and the one that reads it are float, the first is int8, and the file holds both."""

    def drop(content: bytes) -> float:
        return max(0.0, 20.0 - output_sqnr(hostile, content, _images))

    result = mixed_precision(hostile, _images, drop, 0.0)
    assert list(result.kept) == find_layers(hostile)[1:]
    assert drop(result.content) == result.drop == 0
    assert result.attempts[0].kept == ()
    assert result.attempts[0].drop > 0
    graph = FlatGraph(result.content)
    kinds = {graph.dtype(int(one.outputs[0])) for one in graph.operations}
    assert kinds >= {"int8", "float32"}


def test_a_budget_out_of_reach_names_the_closest(hostile: bytes) -> None:
    """The text says what was reached, with how many layers, and has an exit code of its own."""
    order = [layer.name for layer in find_layers(hostile)]
    words = r"^mAP may drop by 0.1, .* drops by 7, .* of 3 layers"
    with pytest.raises(BudgetError, match=words) as one:
        mixed_precision(hostile, _images, lambda _: 7.0, 0.1, order=order, metric="mAP")
    assert one.value.exit_code == 4


def test_no_layer_is_kept_where_int8_is_good_enough(hostile: bytes) -> None:
    """One file is tried, and none but it."""
    result = mixed_precision(hostile, _images, lambda _: 0.0, 0.0)
    assert result.kept == ()
    assert len(result.attempts) == 1


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("calibration", ["mse", "min-max"])
def test_mixed_without_float_layers_is_the_int8_file(
    hostile: bytes, calibration: str, per_channel: bool
) -> None:
    """Byte for byte, whatever the calibration and the scales of the weights."""
    options = {"calibration": calibration, "per_channel": per_channel}
    result = mixed_precision(hostile, _images, lambda _: 0.0, 0.0, **options)
    assert result.content == quantize_with_images(hostile, get_scheme("int8"), _images, **options)


def test_sensitivity_is_measured_as_the_file_is_made(hostile: bytes) -> None:
    """With one scale for the kernel, the channel that is 3000 times larger costs all others."""
    one_scale = analyse(hostile, _images, per_channel=False)
    middle = find_layers(hostile)[1]
    [found] = [one.weights for one in analyse(hostile, _images) if one.layer == middle]
    assert found > 35
    accumulated = {one.layer.name: one.accumulated for one in one_scale}
    assert accumulated[find_layers(hostile)[2].name] < 5


def test_bad_budgets_and_orders_are_refused(hostile: bytes) -> None:
    """The text has the received value."""
    with pytest.raises(EdgeheadsError, match="at least 0, received -1"):
        mixed_precision(hostile, _images, lambda _: 0.0, -1)
    with pytest.raises(EdgeheadsError, match=r"each of the 3 layers once, received \['x'\]"):
        mixed_precision(hostile, _images, lambda _: 0.0, 0, order=["x"])
