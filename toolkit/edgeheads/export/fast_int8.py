"""Changes to a float .tflite file that make its int8 form faster in XNNPACK; outputs stay the same.

All were found by timing operations one by one; compression/README.md has the figures.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeheads.device import DeviceProfile
from edgeheads.export.fast_resize import enlarge_by_rows
from edgeheads.export.flatgraph import FlatGraph
from edgeheads.export.xnnpack import BETWEEN_FLOAT, WITHOUT_INT8
from edgeheads.tasks.base import Array

__all__ = [
    "Speed",
    "between_float",
    "fast_for",
    "fold_gates",
    "fold_width",
    "has_matrix_tiles",
    "named_speed",
    "speed_for",
    "unary_without_int8",
]

# An AMX tile takes 64 bytes of a row at once, for 16 channels or more; with fewer most of it is
# empty.
_TILE_BYTES = 64

# A smaller convolution is over in the time that the two reshapes take.
_LEAST_POSITIONS = 48 * 48

# What fills the tiles of outputs better pays on smaller maps, where it does so by this share; the
# products with zeros take over where it makes more inputs than these.
_LEAST_POINTWISE = 28 * 28
_LEAST_FILLED = 0.15
_MOST_INPUTS = 256


@dataclass(frozen=True)
class Speed:
    """What an int8 file is made fast for.

    Attributes:
        unary_float: keep operations on one tensor float that XNNPACK has no int8 kernel for. Not
            for targets that compute integers only.
        matrix_tiles: change convolutions and resizes for a processor with matrix tiles, and keep
            depthwise convolutions float that lie between float operations: such a processor's
            float vectors are as wide, and need no rounding.
    """

    unary_float: bool = False
    matrix_tiles: bool = False

    def changed(self, float_model: bytes) -> tuple[bytes, set[str]]:
        """Return the float file to quantize, and what of it to keep float."""
        if not (self.unary_float or self.matrix_tiles):
            return float_model, set()
        float_model = fold_gates(float_model)
        kept = unary_without_int8(float_model) if self.unary_float else set()
        if self.matrix_tiles:
            kept |= between_float(float_model, kept)
            float_model = fold_width(enlarge_by_rows(float_model))
        return float_model, kept


# What `export.fast_for` of a recipe stands for.
_FAST_FOR = {
    "any": Speed(),
    "xnnpack": Speed(unary_float=True),
    "xnnpack-amx": Speed(unary_float=True, matrix_tiles=True),
}


def named_speed(name: str) -> Speed:
    """Return what a recipe's `export.fast_for` stands for."""
    return _FAST_FOR[name]


def fast_for(profile: DeviceProfile) -> str:
    """Return what pays on a device: XNNPACK's tables on any, tiles on this machine if it has any.

    Devices with rules for operations of their own get the plain file, "any".
    """
    if profile.delegate != "xnnpack" or profile.op_rules:
        return "any"
    return "xnnpack-amx" if profile.link == "local" and has_matrix_tiles() else "xnnpack"


def speed_for(profile: DeviceProfile) -> Speed:
    """Return what `fast_for` stands for."""
    return named_speed(fast_for(profile))


def has_matrix_tiles(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Tell whether this machine multiplies int8 matrices in tiles (AMX)."""
    try:
        return "amx_int8" in cpuinfo.read_text(encoding="utf-8").split()
    except OSError:
        return False


@dataclass(frozen=True)
class _Convolution:
    """A convolution that can be folded: stock padding, no dilation, one group."""

    operation: Any
    height: int
    width: int
    in_channels: int
    out_height: int
    out_width: int
    out_channels: int
    kernel: tuple[int, int]
    stride: int
    left: int

    def reach(self, fold: int) -> tuple[int, int]:
        """Return the first and last folded column that `fold` outputs side by side read."""
        span = fold * self.stride
        last = (fold - 1) * self.stride + self.kernel[1] - 1 - self.left
        return -self.left // span, last // span


def unary_without_int8(float_model: bytes) -> set[str]:
    """Return the tensors of operations on one tensor that XNNPACK is faster at in float.

    For `keep_float`. What is in front of and behind them stays int8.
    """
    graph = FlatGraph(float_model)
    return {
        graph.name(int(one.outputs[0]))
        for one in graph.operations
        if graph.kind(one) in WITHOUT_INT8
    }


def between_float(float_model: bytes, kept: Collection[str]) -> set[str]:
    """Return the tensors of depthwise convolutions and products next to tensors kept float.

    A depthwise convolution both of whose neighbours are float saves the two roundings between
    them; so does the product of a float map and its gate.
    """
    graph = FlatGraph(float_model)
    return {
        graph.name(int(one.outputs[0]))
        for one in graph.operations
        if graph.kind(one) in BETWEEN_FLOAT
        and _has_float_map(graph, one, kept)
        and (graph.kind(one) == "MUL" or _is_read_float(graph, one, kept))
    }


def _has_float_map(graph: FlatGraph, operation: Any, kept: Collection[str]) -> bool:
    return any(
        graph.name(int(tensor)) in kept and math.prod(graph.shape(int(tensor))[1:3]) > 1
        for tensor in operation.inputs
    )


def _is_read_float(graph: FlatGraph, operation: Any, kept: Collection[str]) -> bool:
    return any(
        graph.name(int(reader.outputs[0])) in kept
        for reader in graph.readers(int(operation.outputs[0]))
    )


def fold_gates(float_model: bytes) -> bytes:
    """Let the convolution behind a gate take the constant that the gate is multiplied by.

    A hard sigmoid is relu6(x + 3) times a sixth, and what it gates goes into a convolution: its
    kernel takes the sixth. That saves an operation on a vector, of which a delegate's own costs
    are most.
    """
    graph = FlatGraph(float_model)
    for operation in graph.operations:
        factor = _factor_of(graph, operation)
        gated = graph.readers(int(operation.outputs[0]))
        if factor is None or not _is_gate(graph, int(operation.outputs[0]), gated):
            continue
        behind = graph.readers(int(gated[0].outputs[0]))
        if not _take_factor(graph, gated[0], behind):
            continue
        for one in behind:
            weights = int(one.inputs[1])
            graph.set_constant(weights, graph.constant(weights) * factor)
        [image] = (int(one) for one in operation.inputs if not graph.is_constant(int(one)))
        gated[0].inputs = np.where(
            np.asarray(gated[0].inputs) == operation.outputs[0], image, gated[0].inputs
        ).astype(np.int32)
        graph.remove(operation)
    return graph.to_bytes()


def _is_gate(graph: FlatGraph, tensor: int, gated: Sequence[Any]) -> bool:
    """Tell whether all that reads a tensor is one product with another tensor."""
    return (
        tensor not in graph.outputs
        and len(gated) == 1
        and graph.kind(gated[0]) == "MUL"
        # A square has the factor twice.
        and list(gated[0].inputs).count(tensor) == 1
    )


def _factor_of(graph: FlatGraph, operation: Any) -> np.float32 | None:
    """Return by what one number an operation multiplies, None if it does something else."""
    if graph.kind(operation) != "MUL" or operation.builtinOptions.fusedActivationFunction:
        return None
    constants = [int(one) for one in operation.inputs if graph.is_constant(int(one))]
    if len(constants) != 1 or math.prod(graph.shape(constants[0])) != 1:
        return None
    return np.float32(graph.constant(constants[0]).reshape(-1)[0])


def _take_factor(graph: FlatGraph, gated: Any, behind: Sequence[Any]) -> bool:
    """Tell whether kernels can do what a product's factor did: nothing else reads the product."""
    return (
        not gated.builtinOptions.fusedActivationFunction
        and int(gated.outputs[0]) not in graph.outputs
        and bool(behind)
        and all(
            graph.kind(one) == "CONV_2D"
            and graph.is_constant(int(one.inputs[1]))
            and len(graph.readers(int(one.inputs[1]))) == 1
            for one in behind
        )
    )


def fold_width(float_model: bytes) -> bytes:
    """Let convolutions of few channels compute several neighbours in a row as channels of one.

    [1, H, W, C] and [1, H, W / f, f * C] are the same bytes. A convolution between the two forms
    has each filter f times, moved by a step and filled up with zeros: more products, of which a
    processor with matrix tiles (AMX) computes most in the time of one. Elsewhere it is slower.

    Returns:
        The file; tensors that other operations read keep their names and values.
    """
    graph = FlatGraph(float_model)
    for operation in graph.operations:
        found = _convolution(graph, operation)
        fold = _best_fold(found) if found else 1
        if found and fold > 1:
            _replace(graph, found, fold)
    return graph.to_bytes()


def _convolution(graph: FlatGraph, operation: Any) -> _Convolution | None:
    if graph.kind(operation) != "CONV_2D" or len(operation.inputs) < 3:
        return None
    image, weights, bias = (int(tensor) for tensor in operation.inputs)
    options = operation.builtinOptions
    if not graph.is_constant(weights) or bias < 0 or not graph.is_constant(bias):
        return None
    batch, height, width, in_channels = graph.shape(image)
    _, out_height, out_width, out_channels = graph.shape(int(operation.outputs[0]))
    filters, *kernel, depth = graph.shape(weights)
    stride = options.strideW
    plain = (
        batch == 1
        and depth == in_channels
        and filters == out_channels
        and (options.dilationWFactor, options.dilationHFactor) == (1, 1)
        and out_width * stride == width
        # A wider kernel cannot be as wide as the image on the same side of the padding.
        and (kernel[1] == 1 or graph.is_same_padded(operation))
    )
    if not plain:
        return None
    left = max(0, (out_width - 1) * stride + kernel[1] - width) // 2
    return _Convolution(
        operation,
        height,
        width,
        in_channels,
        out_height,
        out_width,
        out_channels,
        (kernel[0], kernel[1]),
        stride,
        left,
    )


def _best_fold(one: _Convolution) -> int:
    """Return how many outputs to compute at once; 1 leaves the convolution as it is."""
    if one.kernel == (1, 1) and (one.in_channels >= _TILE_BYTES or one.out_channels > 32):
        return _filling_fold(one)
    if one.out_height * one.out_width < _LEAST_POSITIONS:
        return _filling_fold(one) if one.kernel == (1, 1) else 1
    # Wide enough as it is: a tile is filled, or its empty part costs less than the writing.
    if one.kernel != (1, 1) and one.in_channels * one.stride > 8:
        return 1
    for fold in (4, 2):
        first, last = one.reach(fold)
        fits = one.out_width % fold == 0 and one.width % (fold * one.stride) == 0
        # SAME padding of the folded kernel must begin where the original one does.
        if fits and (last - first) // 2 == -first:
            return fold
    return 1


def _filling_fold(one: _Convolution) -> int:
    """Return with which fold a pointwise convolution leaves least of its output tiles empty.

    Of 96 outputs the second tile of 64 is half empty, and as slow to write as a full one; those
    of two neighbours fill three.
    """
    if one.out_height * one.out_width < _LEAST_POINTWISE or one.stride > 1:
        return 1
    best, least = 1, _tiles_per_output(one.out_channels) * (1 - _LEAST_FILLED)
    for fold in (2, 4):
        tiles = _tiles_per_output(fold * one.out_channels)
        fits = one.out_width % fold == 0 and fold * one.in_channels <= _MOST_INPUTS
        if fits and tiles < least:
            best, least = fold, tiles * (1 - _LEAST_FILLED)
    return best


def _tiles_per_output(channels: int) -> float:
    return math.ceil(channels / _TILE_BYTES) / channels


def _replace(graph: FlatGraph, one: _Convolution, fold: int) -> None:
    operation = one.operation
    span = fold * one.stride
    name = graph.name(int(operation.outputs[0]))
    folded_in = graph.add_tensor(
        f"{name}/folded_input",
        (1, one.height, one.width // span, span * one.in_channels),
    )
    folded_out = graph.add_tensor(
        f"{name}/folded",
        (1, one.out_height, one.out_width // fold, fold * one.out_channels),
    )
    image, weights, bias = (int(tensor) for tensor in operation.inputs)
    output = int(operation.outputs[0])
    kernel = _folded_kernel(graph.constant(weights), one, fold)
    operation.inputs = np.asarray(
        [
            folded_in,
            graph.add_constant(f"{name}/folded_weights", kernel),
            graph.add_constant(f"{name}/folded_bias", np.tile(graph.constant(bias), fold)),
        ],
        np.int32,
    )
    operation.outputs = np.asarray([folded_out], np.int32)
    operation.builtinOptions.strideW = 1
    graph.insert_reshape(image, folded_in, before=operation)
    graph.insert_reshape(folded_out, output, after=operation)


def _folded_kernel(kernel: Array, one: _Convolution, fold: int) -> Array:
    """Return [fold * O, kh, taps, span * I] of a kernel [O, kh, kw, I]."""
    filters, rows, columns, depth = kernel.shape
    span = fold * one.stride
    first, last = one.reach(fold)
    folded = np.zeros((fold, filters, rows, last - first + 1, span, depth), kernel.dtype)
    for place in range(fold):
        for column in range(columns):
            tap, within = divmod(place * one.stride + column - one.left, span)
            folded[place, :, :, tap - first, within] = kernel[:, :, column]
    return folded.reshape(fold * filters, rows, math.prod(folded.shape[3:4]), span * depth)
