"""The feature extractor of YOLO12: convolutions, then area attention in R-ELAN stages."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras

from edgeheads.backbones.applications import require_width
from edgeheads.backbones.base import Backbone, InputScaling, require_sides
from edgeheads.backbones.layers import conv_block, round_channels
from edgeheads.backbones.weights import load_weights, require_imagenet
from edgeheads.errors import EdgeheadsError

__all__ = ["VARIANTS", "Variant", "create", "yolo12"]

_HEAD_DIM = 32
_ACTIVATION = "silu"
# Stride 16 attends within quarters of the map; at stride 32 the map is small enough for a whole.
_AREAS = {"P4": 4, "P5": 1}
# How much of a stage's result goes onto its input at the start of training.
_RESIDUAL_SCALE = 0.01

# A symbolic keras.KerasTensor.
Tensor = Any


@dataclass(frozen=True)
class Variant:
    """One size of the network.

    Attributes:
        width_mult: multiplies the channels of every layer, positive.
        depth_mult: multiplies the repeats of every stage, positive; each keeps one at least.
        max_channels: of a layer before the multiplication.
        mlp_ratio: the inner width of a feed-forward branch, in multiples of its input.
        residual: add each R-ELAN stage's input to its scaled result. The paper needs it for the
            large sizes to converge, and finds that it costs the small ones accuracy.
    """

    width_mult: float
    depth_mult: float
    max_channels: int = 1024
    mlp_ratio: float = 2.0
    residual: bool = False


VARIANTS = {
    "yolo12_n": Variant(0.25, 0.5),
    "yolo12_s": Variant(0.5, 0.5),
    "yolo12_m": Variant(1.0, 0.5, 512),
    "yolo12_l": Variant(1.0, 1.0, 512, mlp_ratio=1.2, residual=True),
    "yolo12_x": Variant(1.5, 1.0, 512, mlp_ratio=1.2, residual=True),
}

_WIDTHS = (0.25, 0.5, 0.75, 1.0)


def create(
    name: str, input_shape: tuple[int, int, int], *, width: float, weights: str | Path | None
) -> Backbone:
    """Return a YOLO12 feature extractor; `width` multiplies the variant's own width."""
    require_width(name, width, _WIDTHS)
    if weights == "imagenet":
        require_imagenet(name, width, ())
    variant = VARIANTS[name]
    variant = replace(variant, width_mult=variant.width_mult * width)
    return load_weights(
        lambda _: yolo12(input_shape, variant, name=name), weights, lambda network: network
    )


def yolo12(
    input_shape: tuple[int, int, int], variant: Variant, *, name: str = "yolo12"
) -> Backbone:
    """Return the feature extractor of YOLO12 as a flat graph of stock layers, started at random.

    Stem, two stages of convolutions (strides 4 and 8) and two of area attention (16 and 32). It
    follows the paper and not the weights that its authors publish, which do not fit.

    Args:
        input_shape: (height, width, 3), both multiples of 32; pixels / 255, in [0, 1].
        variant: one of `VARIANTS`, or one of your own.
        name: of the model.

    Returns:
        Outputs P3, P4, P5, for variant n of 128, 128 and 256 channels.

    Raises:
        EdgeheadsError: a side that is no multiple of 32; a multiplier that is not positive.

    Source: Tian, Ye & Doermann 2025, "YOLOv12: Attention-Centric Real-Time Object Detectors",
        arXiv 2502.12524.
    """
    require_sides(name, input_shape, 32)
    if min(variant.width_mult, variant.depth_mult) <= 0:
        raise EdgeheadsError(
            f"{name}: width_mult and depth_mult must be positive, "
            f"received {variant.width_mult} and {variant.depth_mult}"
        )

    def channels(count: int) -> int:
        return round_channels(min(count, variant.max_channels) * variant.width_mult)

    def halve(x: Tensor, count: int, name: str) -> Tensor:
        return conv_block(x, channels(count), 3, name, strides=2, activation=_ACTIVATION)

    def repeats(count: int) -> int:
        return max(1, round(count * variant.depth_mult))

    image = keras.Input(input_shape, name="image")
    x = halve(image, 64, "stem_1")
    x = halve(x, 128, "stem_2")
    x = _aggregate(x, channels(256), repeats(2), "stage_2")
    x = halve(x, 256, "down_3")
    x = outputs_p3 = _aggregate(x, channels(512), repeats(2), "stage_3")
    x = halve(x, 512, "down_4")
    x = outputs_p4 = _r_elan(x, repeats(4), _AREAS["P4"], variant, "stage_4")
    x = halve(x, 1024, "down_5")
    x = _r_elan(x, repeats(4), _AREAS["P5"], variant, "stage_5")
    return Backbone(
        image,
        {"P3": outputs_p3, "P4": outputs_p4, "P5": x},
        scaling=InputScaling.uniform(1 / 255),
        name=name,
    )


def _aggregate(x: Tensor, channels: int, repeats: int, name: str) -> Tensor:
    """A stage of the kind YOLO11 has (the paper keeps its first two): cross-stage partial, ELAN.

    One half of the channels goes past the bottlenecks, and the result of each is kept (Wang et
    al. 2020, CSPNet; Wang et al. 2022, ELAN).
    """
    hidden = round_channels(channels / 4)
    past = conv_block(x, hidden, 1, f"{name}_past", activation=_ACTIVATION)
    x = conv_block(x, hidden, 1, f"{name}_through", activation=_ACTIVATION)
    kept = [past, x]
    for index in range(repeats):
        block = f"{name}_block_{index}"
        y = conv_block(x, round_channels(hidden / 2), 3, f"{block}_reduce", activation=_ACTIVATION)
        y = conv_block(y, hidden, 3, f"{block}_expand", activation=_ACTIVATION)
        x = keras.layers.Add(name=f"{block}_add")([x, y])
        kept.append(x)
    x = keras.layers.Concatenate(name=f"{name}_concat")(kept)
    return conv_block(x, channels, 1, f"{name}_merge", activation=_ACTIVATION)


def _r_elan(x: Tensor, repeats: int, areas: int, variant: Variant, name: str) -> Tensor:
    """Residual efficient layer aggregation (section 3.3): one transition, then blocks in a row.

    Each repeat is two attention blocks; their results and the transition's are merged.
    """
    channels = x.shape[-1]
    y = conv_block(
        x,
        round_channels(channels / 2, _HEAD_DIM),
        1,
        f"{name}_transition",
        activation=_ACTIVATION,
    )
    kept = [y]
    for index in range(repeats):
        for half in range(2):
            y = _attention_block(y, areas, variant.mlp_ratio, f"{name}_block_{index}_{half}")
        kept.append(y)
    y = keras.layers.Concatenate(name=f"{name}_concat")(kept)
    y = conv_block(y, channels, 1, f"{name}_merge", activation=_ACTIVATION)
    if not variant.residual:
        return y
    # A 1x1 depthwise convolution is the stock layer that scales each channel by one weight.
    y = keras.layers.DepthwiseConv2D(
        1,
        use_bias=False,
        depthwise_initializer=keras.initializers.Constant(_RESIDUAL_SCALE),
        name=f"{name}_scale",
    )(y)
    return keras.layers.Add(name=f"{name}_add")([x, y])


def _attention_block(x: Tensor, areas: int, mlp_ratio: float, name: str) -> Tensor:
    """Area attention and a feed-forward branch, both of convolutions and batch normalization."""
    y = _area_attention(x, areas, f"{name}_attention")
    x = keras.layers.Add(name=f"{name}_attention_add")([x, y])
    inner = round_channels(x.shape[-1] * mlp_ratio)
    y = conv_block(x, inner, 1, f"{name}_mlp_expand", activation=_ACTIVATION)
    y = conv_block(y, x.shape[-1], 1, f"{name}_mlp_reduce", activation=None)
    return keras.layers.Add(name=f"{name}_mlp_add")([x, y])


def _area_attention(x: Tensor, areas: int, name: str) -> Tensor:
    """Multi-head attention within `areas` runs of rows (section 3.2).

    A quarter of the map costs a quarter of the scores, and splitting it is a reshape. There is no
    positional encoding: a 7x7 depthwise convolution of the values tells places apart.
    """
    height, width, channels = x.shape[1:]
    heads, length = channels // _HEAD_DIM, height * width // areas

    def project(name: str, source: Tensor = x) -> Tensor:
        return conv_block(source, channels, 1, name, activation=None)

    def split(x: Tensor, name: str) -> Tensor:
        """[B, H, W, C] -> [B, areas * heads, length, 32]: four dimensions, as int8 kernels take."""
        shape = (areas, length, heads, _HEAD_DIM)
        x = keras.layers.Reshape(shape, name=f"{name}_areas")(x)
        x = keras.layers.Permute((1, 3, 2, 4), name=f"{name}_heads")(x)
        return keras.layers.Reshape((areas * heads, length, _HEAD_DIM), name=f"{name}_split")(x)

    values = project(f"{name}_value")
    queries = split(project(f"{name}_query"), f"{name}_query")
    queries = keras.layers.Rescaling(1 / math.sqrt(_HEAD_DIM), name=f"{name}_scale")(queries)
    keys = keras.ops.transpose(split(project(f"{name}_key"), f"{name}_key"), (0, 1, 3, 2))
    weights = keras.layers.Softmax(name=f"{name}_softmax")(keras.ops.matmul(queries, keys))
    mixed = keras.ops.matmul(weights, split(values, f"{name}_value"))

    mixed = keras.layers.Reshape((areas, heads, length, _HEAD_DIM), name=f"{name}_unsplit")(mixed)
    mixed = keras.layers.Permute((1, 3, 2, 4), name=f"{name}_unheads")(mixed)
    mixed = keras.layers.Reshape((height, width, channels), name=f"{name}_map")(mixed)
    places = conv_block(values, channels, 7, f"{name}_position", activation=None, depthwise=True)
    mixed = keras.layers.Add(name=f"{name}_position_add")([mixed, places])
    return project(f"{name}_output", mixed)
