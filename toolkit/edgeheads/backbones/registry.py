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
# create(name, input_shape, width=..., weights=...) -> Backbone with all its levels.
BACKBONES = {
    "mobilenet": "mobilenet",
    "mobilenet_v2": "mobilenet",
    "mobilenet_v3_small": "mobilenet",
    "mobilenet_v3_small_minimalistic": "mobilenet",
    "mobilenet_v3_large": "mobilenet",
    "mobilenet_v3_large_minimalistic": "mobilenet",
    "efficientnet_b0": "efficientnet",
    "efficientnet_b1": "efficientnet",
    "efficientnet_b2": "efficientnet",
    "efficientnet_b3": "efficientnet",
    "efficientnet_b4": "efficientnet",
    "efficientnet_b5": "efficientnet",
    "efficientnet_b6": "efficientnet",
    "efficientnet_b7": "efficientnet",
    "efficientnet_v2_b0": "efficientnet",
    "resnet50": "resnet",
    "nasnet_mobile": "nasnet",
    "efficientnet_lite0": "hub",
    "efficientnet_lite1": "hub",
    "efficientnet_lite2": "hub",
    "efficientnet_lite3": "hub",
    "efficientnet_lite4": "hub",
    "mobilenet_v4_conv_small": "hub",
    "mobilenet_v4_conv_medium": "hub",
    "mobilenet_v5_300m": "hub",
    "dinov2_small": "hub",
    "dinov2_base": "hub",
    "dinov2_large": "hub",
    "dinov2_with_registers_small": "hub",
    "dinov2_with_registers_base": "hub",
    "dinov2_with_registers_large": "hub",
    "dinov3_small": "hub",
    "dinov3_small_plus": "hub",
    "dinov3_base": "hub",
    "dinov3_large": "hub",
    "mit_b0": "mit",
    "mit_b1": "mit",
    "mit_b2": "mit",
    "mit_b3": "mit",
    "mit_b4": "mit",
    "mit_b5": "mit",
    "darknet53": "hub",
    "csp_darknet53": "hub",
    "csp_resnet50": "hub",
    "csp_resnext50": "hub",
    "hgnetv2_b0": "hub",
    "hgnetv2_b1": "hub",
    "hgnetv2_b2": "hub",
    "hgnetv2_b3": "hub",
    "hgnetv2_b4": "hub",
    "hgnetv2_b5": "hub",
    "hgnetv2_b6": "hub",
    "vit_tiny_patch16": "vit",
    "vit_small_patch16": "vit",
    "vit_base_patch16": "vit",
    "vit_base_patch32": "vit",
    "vit_large_patch16": "vit",
    "yolo12_n": "yolo12",
    "yolo12_s": "yolo12",
    "yolo12_m": "yolo12",
    "yolo12_l": "yolo12",
    "yolo12_x": "yolo12",
    "tiny": "tiny",
    "tiny_vit": "vit",
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
        weights: "imagenet" (downloaded), a `.npz`, `.keras`, `.h5` or `.weights.h5` file of the
            stock network or of the backbone with all its levels, or None for a random start.
            Families from KerasHub also take a preset: its name, or its folder.
        width: multiplies the channels of every layer, where the family has such a choice.
        levels: which outputs, such as ["P3", "P4", "P5"]; default: all the family has.

    Raises:
        EdgeheadsError: an unknown name or level, a width the family does not have, a size the
            network cannot take, weights that cannot be had or do not fit.
        MissingDependencyError: the family needs KerasHub, which is not installed.
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
    return backbone if levels is None else backbone.select(levels)
