"""Files made fast for int8: the same outputs, other operations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeheads.device import DeviceProfile
from edgeheads.runtime import DeviceSession

pytest.importorskip("tensorflow")
keras = pytest.importorskip("keras")

from edgeheads.export.fast_int8 import (  # noqa: E402
    Speed,
    between_float,
    fold_gates,
    fold_width,
    has_matrix_tiles,
    speed_for,
    unary_without_int8,
)
from edgeheads.export.fast_resize import enlarge_by_rows, shares  # noqa: E402
from edgeheads.export.flatgraph import FlatGraph  # noqa: E402
from edgeheads.export.tflite import convert_to_float_tflite, convert_to_tflite  # noqa: E402

LAYERS = keras.layers


def float_file(*layers: Any, shape: tuple[int, int, int] = (96, 96, 3)) -> bytes:
    keras.utils.set_random_seed(0)
    image = x = keras.Input(shape)
    for layer in layers:
        x = layer(x)
    return convert_to_float_tflite(image, {"result": x})


def kinds(content: bytes) -> list[str]:
    graph = FlatGraph(content)
    return [graph.kind(one) for one in graph.operations]


def computed(content: bytes, folder: Path) -> np.ndarray:
    """Return the one output for a fixed image."""
    graph = FlatGraph(content)
    image = np.random.default_rng(0).uniform(-1, 1, graph.shape(graph.inputs[0]))
    path = folder / "model.tflite"
    path.write_bytes(content)
    with DeviceSession() as session:
        [output] = session.predict(path, {"image": image.astype(np.float32)}).values()
    return output


@pytest.mark.parametrize(
    "layer",
    [
        LAYERS.Conv2D(8, 3, strides=2, padding="same", activation="relu6"),
        LAYERS.Conv2D(8, 3, padding="same"),
        LAYERS.Conv2D(5, 1),
        LAYERS.Conv2D(96, 1),
    ],
    ids=["stem", "same size", "pointwise", "tiles"],
)
def test_a_folded_convolution_computes_the_same(layer: Any, tmp_path: Path) -> None:
    plain = float_file(layer)
    folded = fold_width(plain)
    assert kinds(plain) == ["CONV_2D"]
    assert kinds(folded) == ["RESHAPE", "CONV_2D", "RESHAPE"]
    np.testing.assert_allclose(
        computed(folded, tmp_path), computed(plain, tmp_path), rtol=1e-5, atol=1e-6
    )


def test_a_stem_is_folded_four_times() -> None:
    # 4 outputs at stride 2 read columns 0 to 8: two taps of 8 columns of 3 channels.
    graph = FlatGraph(fold_width(float_file(LAYERS.Conv2D(8, 3, strides=2, padding="same"))))
    [convolution] = [one for one in graph.operations if graph.kind(one) == "CONV_2D"]
    assert graph.shape(int(convolution.inputs[0])) == (1, 96, 12, 24)
    assert graph.shape(int(convolution.inputs[1])) == (32, 3, 2, 24)


@pytest.mark.parametrize(
    ("inputs", "outputs", "fold"),
    [
        (16, 96, 2),  # two tiles of 64, the second half empty: three for two neighbours
        (24, 144, 2),  # three, of which 48 of 192 are empty: 32 of 320; nine full ones are no more
        (16, 72, 4),  # 56 of 128 empty: two neighbours fill 144 of 192, four 288 of 320
        (96, 24, 2),  # four neighbours would have 384 inputs
    ],
)
def test_pointwise_convolutions_fill_tiles(inputs: int, outputs: int, fold: int) -> None:
    graph = FlatGraph(fold_width(float_file(LAYERS.Conv2D(outputs, 1), shape=(56, 56, inputs))))
    [convolution] = [one for one in graph.operations if graph.kind(one) == "CONV_2D"]
    assert graph.shape(int(convolution.inputs[1])) == (fold * outputs, 1, 1, fold * inputs)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (LAYERS.Conv2D(8, 3, strides=2, padding="same"), (95, 95, 3)),
        (LAYERS.Conv2D(8, 3, strides=2, padding="same"), (64, 64, 3)),
        (LAYERS.Conv2D(8, 3, padding="valid"), (96, 96, 3)),
        (LAYERS.Conv2D(8, 3, padding="same", dilation_rate=2), (96, 96, 3)),
        (LAYERS.Conv2D(8, 1), (96, 96, 256)),
        (LAYERS.Conv2D(64, 1), (56, 56, 64)),
        (LAYERS.Conv2D(96, 1), (14, 14, 24)),
    ],
    ids=["odd", "small", "valid", "dilated", "wide", "full tiles", "small pointwise"],
)
def test_other_convolutions_are_left_alone(layer: Any, shape: tuple[int, int, int]) -> None:
    plain = float_file(layer, shape=shape)
    assert kinds(fold_width(plain)) == kinds(plain)


@pytest.mark.parametrize("channels", [1, 2])
def test_rows_enlarge_as_a_resize_does(channels: int, tmp_path: Path) -> None:
    plain = float_file(LAYERS.UpSampling2D(4, interpolation="bilinear"), shape=(40, 36, channels))
    by_rows = enlarge_by_rows(plain)
    assert "RESIZE_BILINEAR" in kinds(plain)
    assert "RESIZE_BILINEAR" not in kinds(by_rows)
    np.testing.assert_allclose(
        computed(by_rows, tmp_path), computed(plain, tmp_path), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (LAYERS.UpSampling2D(2, interpolation="bilinear"), (8, 8, 1)),
        (LAYERS.UpSampling2D(4, interpolation="bilinear"), (56, 56, 21)),
        (LAYERS.Resizing(200, 200, interpolation="bilinear"), (56, 56, 1)),
    ],
    ids=["small", "many channels", "not whole"],
)
def test_other_resizes_are_left_alone(layer: Any, shape: tuple[int, int, int]) -> None:
    plain = float_file(layer, shape=shape)
    assert kinds(enlarge_by_rows(plain)) == kinds(plain)


def test_shares_of_a_cell() -> None:
    # Centres of halves lie a quarter of a pixel before and behind the cell's own.
    np.testing.assert_allclose(shares(2), [[0.25, 0.75, 0], [0, 0.75, 0.25]])
    np.testing.assert_allclose(shares(4).sum(axis=1), 1)


def test_hard_swish_stays_float_between_int8(tmp_path: Path) -> None:
    keras.utils.set_random_seed(0)
    image = keras.Input((96, 96, 3))
    x = LAYERS.Conv2D(8, 3, padding="same", activation="hard_swish")(image)
    outputs = {"result": LAYERS.Conv2D(2, 1)(x)}

    def images() -> Any:
        for seed in range(2):
            rng = np.random.default_rng(seed)
            yield rng.uniform(-1, 1, (1, 96, 96, 3)).astype(np.float32)

    assert len(unary_without_int8(convert_to_float_tflite(image, outputs))) == 1
    plain = convert_to_tflite(image, outputs, "int8", images)
    fast = convert_to_tflite(image, outputs, "int8", images, speed=Speed(unary_float=True))
    assert kinds(plain).count("QUANTIZE") == 0
    assert kinds(fast) == ["CONV_2D", "DEQUANTIZE", "HARD_SWISH", "QUANTIZE", "CONV_2D"]
    path = tmp_path / "fast.tflite"
    path.write_bytes(fast)
    with DeviceSession() as session:
        facts = session.inspect(path)
    assert facts["delegated_nodes"] == facts["nodes"]


def inverted_residual(image: Any, *, gate: Any = "hard_sigmoid", filters: int = 4) -> Any:
    """As in MobileNetV3: hard-swish around a depthwise convolution, and a squeeze-excitation."""
    x = LAYERS.Conv2D(8, 1, activation="hard_swish")(image)
    x = LAYERS.DepthwiseConv2D(3, padding="same", activation="hard_swish")(x)
    excited = LAYERS.Conv2D(8, 1)(LAYERS.GlobalAveragePooling2D(keepdims=True)(x))
    return LAYERS.Conv2D(filters, 1)(x * LAYERS.Activation(gate)(excited))


def file_of(make: Any, shape: tuple[int, int, int] = (16, 16, 3)) -> bytes:
    keras.utils.set_random_seed(0)
    image = keras.Input(shape)
    return convert_to_float_tflite(image, {"result": make(image)})


def test_a_gates_sixth_goes_into_the_kernel_behind_it(tmp_path: Path) -> None:
    plain = file_of(inverted_residual)
    folded = fold_gates(plain)
    assert kinds(plain).count("MUL") == 2
    assert kinds(folded).count("MUL") == 1
    np.testing.assert_allclose(
        computed(folded, tmp_path), computed(plain, tmp_path), rtol=1e-5, atol=1e-6
    )


def test_a_gated_map_that_something_else_reads_keeps_its_sixth(tmp_path: Path) -> None:
    def make(image: Any) -> Any:
        gated = image * LAYERS.Activation("hard_sigmoid")(LAYERS.Conv2D(3, 1)(image))
        return gated + LAYERS.Conv2D(3, 1)(gated)

    plain = file_of(make)
    assert kinds(fold_gates(plain)) == kinds(plain)


def test_a_gate_that_is_squared_or_returned_keeps_its_sixth() -> None:
    def squared(image: Any) -> Any:
        gate = LAYERS.Activation("hard_sigmoid")(LAYERS.Conv2D(3, 1)(image))
        return LAYERS.Conv2D(3, 1)(gate * gate)

    plain = file_of(squared)
    assert kinds(fold_gates(plain)) == kinds(plain)

    image = keras.Input((16, 16, 3))
    gate = LAYERS.Activation("hard_sigmoid")(LAYERS.Conv2D(3, 1)(image))
    result = LAYERS.Conv2D(3, 1)(image * gate)
    plain = convert_to_float_tflite(image, {"gate": gate, "result": result})
    assert kinds(fold_gates(plain)) == kinds(plain)


def test_two_readers_of_a_gated_map_both_take_the_sixth(tmp_path: Path) -> None:
    def make(image: Any) -> Any:
        gated = image * LAYERS.Activation("hard_sigmoid")(LAYERS.Conv2D(3, 1)(image))
        return LAYERS.Conv2D(3, 1)(gated) + LAYERS.Conv2D(3, 3, padding="same")(gated)

    plain = file_of(make)
    folded = fold_gates(plain)
    assert kinds(folded).count("MUL") == kinds(plain).count("MUL") - 1
    np.testing.assert_allclose(
        computed(folded, tmp_path), computed(plain, tmp_path), rtol=1e-5, atol=1e-6
    )


def test_what_lies_between_float_operations_stays_float_for_tiles_alone() -> None:
    plain = file_of(inverted_residual)
    kept = unary_without_int8(plain)
    graph = FlatGraph(plain)
    of = {graph.name(int(one.outputs[0])): graph.kind(one) for one in graph.operations}
    assert sorted(of[name] for name in kept) == ["HARD_SWISH", "HARD_SWISH"]
    assert sorted(of[name] for name in between_float(plain, kept)) == ["DEPTHWISE_CONV_2D", "MUL"]
    assert not between_float(plain, set())
    assert Speed(unary_float=True).changed(plain)[1] == kept


def test_a_depthwise_convolution_with_one_float_neighbour_stays_int8() -> None:
    def make(image: Any) -> Any:
        x = LAYERS.Conv2D(8, 1, activation="hard_swish")(image)
        return LAYERS.Conv2D(4, 1)(LAYERS.DepthwiseConv2D(3, padding="same")(x))

    plain = file_of(make)
    assert not between_float(plain, unary_without_int8(plain))


def test_speed_follows_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeheads.export.fast_int8.has_matrix_tiles", lambda: True)
    assert speed_for(DeviceProfile(delegate="xnnpack")) == Speed(True, True)
    assert speed_for(DeviceProfile(delegate="none")) == Speed()
    assert speed_for(DeviceProfile(delegate="xnnpack", link="ssh", host="pi")) == Speed(True, False)


def test_tiles_are_read_off_the_processor(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    assert not has_matrix_tiles(cpuinfo)
    cpuinfo.write_text("flags\t: fpu avx2 avx512_vnni\n", encoding="utf-8")
    assert not has_matrix_tiles(cpuinfo)
    cpuinfo.write_text("flags\t: fpu amx_tile amx_int8\n", encoding="utf-8")
    assert has_matrix_tiles(cpuinfo)
