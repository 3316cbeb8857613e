"""Bilinear enlargement as convolutions, which int8 computes faster than RESIZE_BILINEAR.

The values are those of the resize to within the rounding of its weights.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeheads.export.flatgraph import FlatGraph
from edgeheads.tasks.base import Array

__all__ = ["enlarge_by_convolutions"]

# What is enlarged to fewer values than this is over in the time of the new operations.
_LEAST_VALUES = 40_000

# Of a map with few channels, whole rows are products of a matrix. Beyond, the matrix grows with
# the square of the channels and is mostly zeros.
_MOST_ROW_CHANNELS = 1


def enlarge_by_convolutions(float_model: bytes) -> bytes:
    """Replace large enlargements by a whole factor.

    A pixel of the result lies between two rows and two columns of the map, and how far between
    depends on its place in a cell alone: so each row of a cell is a convolution of the map whose
    channels are the columns of the cell. One below another, the rows are the result. A 1x1
    convolution in front becomes part of them. The map is widened by its own border first, as a
    resize repeats it.

    Returns:
        The file; tensors that other operations read keep their names.
    """
    graph = FlatGraph(float_model)
    for operation in graph.operations:
        factor = _factor(graph, operation)
        if factor:
            if graph.shape(int(operation.inputs[0]))[3] <= _MOST_ROW_CHANNELS:
                _enlarge_rows(graph, operation, factor)
            else:
                _enlarge_cells(graph, operation, factor)
            graph.remove(operation)
    return graph.to_bytes()


def _factor(graph: FlatGraph, operation: Any) -> int:
    """Return by how much a resize enlarges, 0 if it is not one to replace."""
    if graph.kind(operation) != "RESIZE_BILINEAR":
        return 0
    options = operation.builtinOptions
    if options.alignCorners or not options.halfPixelCenters:
        return 0
    source, target = (
        graph.shape(int(one)) for one in (operation.inputs[0], operation.outputs[0])
    )
    factor = target[1] // source[1]
    whole = (source[1] * factor, source[2] * factor) == target[1:3]
    large = np.prod(target) >= _LEAST_VALUES
    return factor if whole and factor in (2, 4, 8) and source[0] == 1 and large else 0


def shares(factor: int) -> Array:
    """Return [factor, 3]: what each pixel of a cell takes of the cells before, at and behind."""
    offset = (np.arange(factor) + 0.5) / factor - 0.5
    before, behind = np.maximum(-offset, 0), np.maximum(offset, 0)
    return np.stack([before, 1 - before - behind, behind], axis=1).astype(np.float32)


def _enlarge_rows(graph: FlatGraph, operation: Any, factor: int) -> None:
    """[1, H, W, C] as [1, H, 1, W * C]: all pixels of a cell's rows are the channels of one."""
    source, output = int(operation.inputs[0]), int(operation.outputs[0])
    name = graph.name(output)
    _, height, width, depth = graph.shape(source)
    share = shares(factor)
    across = np.zeros((width, factor, width), np.float32)
    for tap in (-1, 0, 1):
        for column in range(width):
            across[column, :, np.clip(column + tap, 0, width - 1)] += share[:, tap + 1]
    across = np.kron(across.reshape(width * factor, width), np.eye(depth, dtype=np.float32))
    # [row of the cell, column and channel, tap, column and channel of the map]
    kernel = np.einsum("pk,qi->pqki", share, across).reshape(-1, 3, 1, width * depth)
    rows = graph.add_tensor(f"{name}/rows", (1, height, 1, width * depth))
    graph.insert_reshape(source, rows, before=operation)
    padded = _repeat_border(graph, operation, rows, axis=1, before=True, after=True)
    filters = len(kernel)
    enlarged = graph.add_tensor(f"{name}/cells", (1, height, 1, filters))
    bias = np.zeros(filters, np.float32)
    graph.insert_convolution(padded, kernel, bias, enlarged, before=operation)
    graph.insert_reshape(enlarged, output, before=operation)


def _enlarge_cells(graph: FlatGraph, operation: Any, factor: int) -> None:
    source, output = int(operation.inputs[0]), int(operation.outputs[0])
    name = graph.name(output)
    source, weights, bias = _with_convolution(graph, source)
    _, height, width, _ = graph.shape(source)
    filters = len(weights)
    wide = _repeat_border(graph, operation, source, axis=2, before=True, after=True)
    halves = (
        _repeat_border(graph, operation, wide, axis=1, before=True, after=False),
        _repeat_border(graph, operation, wide, axis=1, before=False, after=True),
    )
    share = shares(factor)
    rows = []
    for place in range(factor):
        below = place >= factor // 2
        taps = share[place, 1:] if below else share[place, :2]
        # [column of the cell, filter, row, tap, channel]
        kernel = np.einsum("k,qx,oi->qokxi", taps, share, weights)
        kernel = kernel.reshape(factor * filters, 2, 3, weights.shape[1])
        row = graph.add_tensor(f"{name}/row_{place}", (1, height, width, factor * filters))
        graph.insert_convolution(
            halves[below], kernel, np.tile(bias, factor), row, before=operation
        )
        flat = graph.add_tensor(f"{name}/flat_{place}", (1, height, 1, width * factor * filters))
        graph.insert_reshape(row, flat, before=operation)
        rows.append(flat)
    shape = (1, height, 1, factor * width * factor * filters)
    together = graph.add_tensor(f"{name}/cells", shape)
    graph.insert_concatenation(rows, together, axis=3, before=operation)
    graph.insert_reshape(together, output, before=operation)


def _with_convolution(graph: FlatGraph, tensor: int) -> tuple[int, Array, Array]:
    """Return a map, and the weights [O, I] and bias [O] that make `tensor` of it.

    That is the input of the 1x1 convolution that computes the tensor for the resize alone, which
    is removed; else the tensor itself.
    """
    depth = graph.shape(tensor)[3]
    plain = tensor, np.eye(depth, dtype=np.float32), np.zeros(depth, np.float32)
    makers = [one for one in graph.operations if tensor in one.outputs]
    readers = [one for one in graph.operations if tensor in one.inputs]
    if not makers or len(readers) != 1 or tensor in graph.outputs:
        return plain
    [maker] = makers
    if graph.kind(maker) != "CONV_2D" or len(maker.inputs) < 3:
        return plain
    options = maker.builtinOptions
    image, weights, bias = (int(one) for one in maker.inputs)
    kernel = graph.shape(weights)
    simple = kernel[1:3] == (1, 1) and kernel[3] == graph.shape(image)[3]
    strides = (options.strideW, options.strideH)
    if not simple or strides != (1, 1) or options.fusedActivationFunction:
        return plain
    if not (graph.is_constant(weights) and graph.is_constant(bias)):
        return plain
    found = image, graph.constant(weights).reshape(kernel[0], kernel[3]), graph.constant(bias)
    graph.remove(maker)
    return found


def _repeat_border(
    graph: FlatGraph, operation: Any, tensor: int, *, axis: int, before: bool, after: bool
) -> int:
    """Add a map's first or last row (axis 1) or column (axis 2) once more, or both."""
    name = f"{graph.name(tensor)}/border_{axis}{before:d}{after:d}"
    shape = list(graph.shape(tensor))
    edge = [*shape]
    edge[axis] = 1
    parts = [tensor]
    for wanted, at, place in ((before, 0, 0), (after, shape[axis] - 1, len(parts) + before)):
        if wanted:
            begin = [0, 0, 0, 0]
            begin[axis] = at
            one = graph.add_tensor(f"{name}_{at}", edge)
            graph.insert_slice(tensor, begin, one, before=operation)
            parts.insert(place, one)
    shape[axis] += before + after
    wider = graph.add_tensor(name, shape)
    graph.insert_concatenation(parts, wider, axis=axis, before=operation)
    return wider
