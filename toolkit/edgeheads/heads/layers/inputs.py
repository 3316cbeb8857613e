"""From what a backbone gives (a map, tokens, a list of maps) to a list of maps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras

from edgeheads.errors import EdgeheadsError
from edgeheads.heads.layers.part import Part, Tensor

__all__ = ["as_list", "as_maps", "input_shapes", "known_size", "static_sizes"]


def as_list(inputs: Any) -> list[Tensor]:
    """Return a head's inputs as a list: of one, or of the values of a dictionary.

    Raises:
        EdgeheadsError: there are none.
    """
    if isinstance(inputs, dict):
        inputs = inputs.values()
    elif not isinstance(inputs, (list, tuple)):
        inputs = [inputs]
    tensors = list(inputs)
    if not tensors:
        raise EdgeheadsError("a head needs at least one feature map, received an empty list")
    return tensors


def input_shapes(shape: Any) -> list[tuple[int | None, ...]]:
    """Return the shape or shapes of a head's input as a list, whichever was given."""
    if isinstance(shape, dict):
        shape = list(shape.values())
    if shape and isinstance(shape[0], (list, tuple)):
        return [tuple(one) for one in shape]
    return [tuple(shape)]


def as_maps(part: Part, inputs: Any, grid_size: tuple[int, int] | None) -> list[Tensor]:
    """Return the maps [B, H, W, C] of a head's input, fine to coarse.

    Tokens [B, N, D] become a map of `grid_size`, or of the square that fits; the tokens in front
    that are no patch (class, registers) are dropped.

    Raises:
        EdgeheadsError: an input of another rank, maps that are not fine to coarse, or tokens that
            form no grid.
    """
    maps = [
        _tokens_to_map(part, x, grid_size, f"tokens_{index}") if len(x.shape) == 3 else x
        for index, x in enumerate(as_list(inputs))
    ]
    for x in maps:
        if len(x.shape) != 4:
            raise EdgeheadsError(
                "a head takes a feature map [B, H, W, C], tokens [B, N, D] or a list of them, "
                f"received a tensor of shape {tuple(x.shape)}"
            )
    heights = [x.shape[1] for x in maps]
    if None not in heights and list(heights) != sorted(heights, reverse=True):
        raise EdgeheadsError(
            f"feature maps must be ordered fine to coarse, received heights {heights}; "
            "reverse the list"
        )
    return maps


def _tokens_to_map(part: Part, x: Tensor, grid_size: tuple[int, int] | None, name: str) -> Tensor:
    count, channels = x.shape[1], x.shape[2]
    if count is None:
        raise EdgeheadsError(
            f"the number of tokens must be known, received shape {tuple(x.shape)}; "
            "give the backbone a fixed input size"
        )
    rows, columns = grid_size or _square(count)
    prefix = count - rows * columns
    if prefix < 0:
        raise EdgeheadsError(
            f"grid_size {rows}x{columns} needs {rows * columns} tokens, received {count}"
        )
    if prefix:
        x = part(keras.layers.Cropping1D, f"{name}_patches", cropping=(prefix, 0))(x)
    return part(keras.layers.Reshape, f"{name}_map", target_shape=(rows, columns, channels))(x)


def _square(count: int) -> tuple[int, int]:
    """The largest square of patches that leaves at most 8 class and register tokens in front."""
    side = math.isqrt(count)
    if side == 0 or count - side * side > _MAX_PREFIX_TOKENS:
        raise EdgeheadsError(
            f"{count} tokens are no square grid after dropping up to {_MAX_PREFIX_TOKENS} class "
            "and register tokens; pass grid_size=(rows, columns)"
        )
    return side, side


_MAX_PREFIX_TOKENS = 8


def static_sizes(maps: Sequence[Tensor]) -> list[tuple[int, int]]:
    """Return the (height, width) of each map, which must be known when there are several."""
    sizes = [(x.shape[1], x.shape[2]) for x in maps]
    if len(sizes) > 1 and any(None in size for size in sizes):
        raise EdgeheadsError(
            f"a list of feature maps needs known heights and widths, received {sizes}; "
            "give the backbone a fixed input size"
        )
    return sizes


def known_size(x: Tensor, purpose: str) -> tuple[int, int]:
    """Return the (height, width) of a map.

    Raises:
        EdgeheadsError: they are not known when the head is built; the text says what needs them.
    """
    height, width = x.shape[1], x.shape[2]
    if height is None or width is None:
        raise EdgeheadsError(
            f"{purpose} needs the map's height and width, received shape {tuple(x.shape)}; "
            "give the model a fixed input size"
        )
    return height, width
