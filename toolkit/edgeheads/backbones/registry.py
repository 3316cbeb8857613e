"""The table of backbones, and the function that makes one."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from edgeheads.errors import EdgeheadsError, unknown_name

if TYPE_CHECKING:
    from edgeheads.backbones.base import Backbone

__all__ = ["BACKBONES", "create_backbone"]

# name -> the module of its family, imported on use. A family has
# create(name, input_shape, width, weights) -> Backbone with all its levels.
BACKBONES = {
    "mobilenet_v2": "mobilenet",
}


def create_backbone(
    name: str,
    input_shape: tuple[int, int, int],
    *,
    weights: str | Path | None = None,
    width: float = 1.0,
    levels: Sequence[str] | None = None,
) -> Backbone:
    """Return a Keras model whose outputs are the named levels of a network.

    Args:
        name: a key of `BACKBONES`.
        input_shape: (height, width, 3), each side at least 32.
        weights: "imagenet" (downloaded by Keras), a `.npz`, `.keras`, `.h5` or `.weights.h5`
            file, or None for a random start.
        width: multiplies the channels, where the family has such a choice.
        levels: which outputs, such as ["P3", "P4", "P5"]; default: all the family has.

    Raises:
        EdgeheadsError: an unknown name or level, a size the network cannot take, weights that
            cannot be had or do not fit.
    """
    if name not in BACKBONES:
        raise unknown_name("backbone", name, BACKBONES)
    if len(input_shape) != 3 or input_shape[2] != 3 or min(input_shape[:2]) < 32:
        raise EdgeheadsError(
            "input_shape must be (height, width, 3) with sides of at least 32, "
            f"received {tuple(input_shape)}"
        )
    family = import_module(f"edgeheads.backbones.{BACKBONES[name]}")
    backbone: Backbone = family.create(name, tuple(input_shape), width=width, weights=weights)
    return backbone if levels is None else _select(backbone, levels)


def _select(backbone: Backbone, levels: Sequence[str]) -> Backbone:
    from edgeheads.backbones.base import Backbone

    for level in levels:
        if level not in backbone.pyramid:
            raise unknown_name(f"level of {backbone.name}", level, backbone.pyramid)
    if not levels:
        raise EdgeheadsError(f"levels must name at least one of {list(backbone.pyramid)}")
    return Backbone(
        backbone.input,
        {level: backbone.output[level] for level in backbone.pyramid if level in levels},
        scaling=backbone.scaling,
        name=backbone.name,
    )
