"""Bilinear enlargement of maps with one channel by a convolution of whole rows.

XNNPACK's RESIZE_BILINEAR takes as long for one channel as for eight, and longer in int8 than in
float. The values stay the same, but for the rounding of a pixel's shares to eight bits.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from edgeheads.export.flatgraph import FlatGraph
from edgeheads.tasks.base import Array

__all__ = ["enlarge_by_rows", "shares"]

# The new operations take longer than a resize to fewer values.
_LEAST_VALUES = 20_000

# The matrix grows with the square of the width and of the channels, and is mostly zeros.
_MOST_WEIGHTS = 1_500_000


def enlarge_by_rows(float_model: bytes) -> bytes:
    """Replace enlargements by a whole factor where a matrix does the same in less time.

    All pixels of a row of the map are the channels of one position, [1, H, W, C] being the same
    bytes as [1, H, 1, W * C]. Each of the `factor` rows that come of it is a sum of products of
    three of these rows, the border being repeated as a resize repeats it; and the rows of a cell,
    one behind the other, are the result's.

    Returns:
        The file; tensors that other operations read keep their names.
    """
    graph = FlatGraph(float_model)
    for operation in graph.operations:
        factor = _factor(graph, operation)
        if factor:
            _enlarge_rows(graph, operation, factor)
            graph.remove(operation)
    return graph.to_bytes()


def _factor(graph: FlatGraph, operation: Any) -> int:
    """Return by how much a resize enlarges, 0 if it is not one to replace."""
    if graph.kind(operation) != "RESIZE_BILINEAR":
        return 0
    options = operation.builtinOptions
    if options.alignCorners or not options.halfPixelCenters:
        return 0
    source, target = graph.shape(int(operation.inputs[0])), graph.shape(int(operation.outputs[0]))
    factor = target[1] // source[1]
    if source[0] != 1 or (source[1] * factor, source[2] * factor) != target[1:3] or factor < 2:
        return 0
    weights = 3 * (source[2] * source[3]) ** 2 * factor**2
    worth = math.prod(target) >= _LEAST_VALUES and weights <= _MOST_WEIGHTS
    return factor if worth else 0


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
    padded = _repeat_border(graph, operation, rows)
    filters = len(kernel)
    enlarged = graph.add_tensor(f"{name}/cells", (1, height, 1, filters))
    bias = np.zeros(filters, np.float32)
    graph.insert_convolution(padded, kernel, bias, enlarged, before=operation)
    graph.insert_reshape(enlarged, output, before=operation)


def _repeat_border(graph: FlatGraph, operation: Any, rows: int) -> int:
    """Add the first and the last row of a map once more."""
    name = f"{graph.name(rows)}/border"
    _, height, one, depth = graph.shape(rows)
    edges = []
    for at in (0, height - 1):
        edge = graph.add_tensor(f"{name}_{at}", (1, 1, one, depth))
        graph.insert_slice(rows, (0, at, 0, 0), edge, before=operation)
        edges.append(edge)
    wider = graph.add_tensor(name, (1, height + 2, one, depth))
    graph.insert_concatenation([edges[0], rows, edges[1]], wider, axis=1, before=operation)
    return wider
