"""The Mix Transformer of SegFormer as a flat graph of stock layers; its weights are KerasHub's.

KerasHub's own MiT computes squares only, and a file of its layers does not load again.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from edgeheads.backbones.applications import require_width
from edgeheads.backbones.base import Backbone, InputScaling, require_sides
from edgeheads.backbones.hub import flat_or_preset
from edgeheads.errors import EdgeheadsError

__all__ = ["create"]

_HEADS = (1, 2, 5, 8)
# By how much keys and values are smaller than queries, per side.
_REDUCTIONS = (8, 4, 2, 1)
_PATCHES = (7, 3, 3, 3)
_STRIDES = (4, 2, 2, 2)
_MAX_DROP_PATH = 0.1

# A symbolic keras.KerasTensor.
Tensor = Any


@dataclass(frozen=True)
class _Variant:
    depths: tuple[int, int, int, int]
    dims: tuple[int, int, int, int] = (64, 128, 320, 512)


# Xie et al. 2021, table 6.
_VARIANTS = {
    "mit_b0": _Variant((2, 2, 2, 2), (32, 64, 160, 256)),
    "mit_b1": _Variant((2, 2, 2, 2)),
    "mit_b2": _Variant((3, 4, 6, 3)),
    "mit_b3": _Variant((3, 4, 18, 3)),
    "mit_b4": _Variant((3, 8, 27, 3)),
    "mit_b5": _Variant((3, 6, 40, 3)),
}


def create(
    name: str, input_shape: tuple[int, int, int], *, width: float, weights: str | Path | None
) -> Backbone:
    """Return a Mix Transformer; its sizes are names, there is no other width.

    Weights may also be a preset of KerasHub's MiTBackbone, which then must be installed.

    Source: Xie et al. 2021, "SegFormer: Simple and Efficient Design for Semantic Segmentation
        with Transformers".
    """
    variant = _VARIANTS[name]
    require_width(name, width, (1.0,))
    require_sides(name, input_shape, 32)
    return flat_or_preset(
        name,
        weights,
        build=lambda: _build(name, input_shape, variant),
        hub_class="MiTBackbone",
        copy=lambda source, backbone, preset: _copy(source, backbone, variant, preset),
        options={"image_shape": input_shape},
    )


def _build(name: str, input_shape: tuple[int, int, int], variant: _Variant) -> Backbone:
    x = image = keras.Input(input_shape, name="image")
    drop_paths = iter(np.linspace(0, _MAX_DROP_PATH, sum(variant.depths)))
    outputs = {}
    for stage in range(4):
        prefix = f"stage_{stage}"
        patch = _PATCHES[stage]
        x = keras.layers.ZeroPadding2D(patch // 2, name=f"{prefix}_pad")(x)
        x = keras.layers.Conv2D(
            variant.dims[stage], patch, strides=_STRIDES[stage], name=f"{prefix}_patches"
        )(x)
        x = keras.layers.LayerNormalization(epsilon=1e-5, name=f"{prefix}_patches_norm")(x)
        for index in range(variant.depths[stage]):
            x = _block(x, stage, float(next(drop_paths)), f"{prefix}_block_{index}")
        x = keras.layers.LayerNormalization(epsilon=1e-5, name=f"{prefix}_norm")(x)
        outputs[f"P{stage + 2}"] = x
    scaling = InputScaling.standardized(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    return Backbone(image, outputs, scaling=scaling, name=name)


def _block(x: Tensor, stage: int, drop_path: float, name: str) -> Tensor:
    y = keras.layers.LayerNormalization(epsilon=1e-6, name=f"{name}_attention_norm")(x)
    y = _attention(y, _HEADS[stage], _REDUCTIONS[stage], f"{name}_attention")
    x = _add(x, y, drop_path, f"{name}_attention")
    y = keras.layers.LayerNormalization(epsilon=1e-6, name=f"{name}_mlp_norm")(x)
    y = keras.layers.Dense(4 * x.shape[-1], name=f"{name}_mlp_expand")(y)
    # The 3x3 convolution tells places apart: there are no position embeddings.
    y = keras.layers.DepthwiseConv2D(3, padding="same", name=f"{name}_mlp_position")(y)
    y = keras.layers.Activation("gelu", name=f"{name}_mlp_act")(y)
    y = keras.layers.Dense(x.shape[-1], name=f"{name}_mlp_reduce")(y)
    return _add(x, y, drop_path, f"{name}_mlp")


def _attention(x: Tensor, heads: int, reduction: int, name: str) -> Tensor:
    """Attention of every position to a map that is `reduction` times smaller, per side."""
    height, width, channels = x.shape[1:]
    queries = keras.layers.Reshape((height * width, channels), name=f"{name}_queries")(x)
    keys = x
    if reduction > 1:
        keys = keras.layers.Conv2D(
            channels, reduction, strides=reduction, name=f"{name}_reduction"
        )(x)
        keys = keras.layers.LayerNormalization(epsilon=1e-5, name=f"{name}_reduction_norm")(keys)
    count = keys.shape[1] * keys.shape[2]
    keys = keras.layers.Reshape((count, channels), name=f"{name}_keys")(keys)
    y = keras.layers.MultiHeadAttention(heads, channels // heads, name=name)(queries, keys)
    return keras.layers.Reshape((height, width, channels), name=f"{name}_map")(y)


def _add(x: Tensor, branch: Tensor, drop_path: float, name: str) -> Tensor:
    if drop_path:
        # Stochastic depth: an image goes without the branch.
        branch = keras.layers.Dropout(
            drop_path, noise_shape=(None, 1, 1, 1), name=f"{name}_drop_path"
        )(branch)
    return keras.layers.Add(name=f"{name}_add")([x, branch])


def _copy(source: keras.Model, backbone: Backbone, variant: _Variant, preset: str) -> None:
    """Fill the backbone with the weights of KerasHub's MiTBackbone."""
    received = (tuple(source.layerwise_depths), tuple(source.hidden_dims))
    if received != (variant.depths, variant.dims):
        raise EdgeheadsError(
            f"preset {preset!r} is no {backbone.name}: expected depths and dimensions "
            f"{variant.depths} and {variant.dims}, received {received[0]} and {received[1]}"
        )
    norms = [x for x in source.layers if isinstance(x, keras.layers.LayerNormalization)]
    for stage in range(4):
        prefix = f"stage_{stage}"
        patches = source.get_layer(f"patch_and_embed_{stage}")
        parts = {"patches": patches.proj, "patches_norm": patches.norm, "norm": norms[stage]}
        for index in range(variant.depths[stage]):
            block = source.get_layer(f"hierarchical_encoder_{stage}_{index}")
            own = {
                "attention_norm": block.norm1,
                "mlp_norm": block.norm2,
                "mlp_expand": block.mlp.fc1,
                "mlp_position": block.mlp.dwconv,
                "mlp_reduce": block.mlp.fc2,
            }
            if _REDUCTIONS[stage] > 1:
                own["attention_reduction"] = block.attn.sr
                own["attention_reduction_norm"] = block.attn.norm
            parts.update({f"block_{index}_{part}": layer for part, layer in own.items()})
            attention = backbone.get_layer(f"{prefix}_block_{index}_attention")
            dense = (block.attn.q, block.attn.k, block.attn.v, block.attn.proj)
            arrays = [array for layer in dense for array in layer.get_weights()]
            # Keras keeps heads as an axis of their own.
            shapes = [x.shape for x in attention.get_weights()]
            attention.set_weights(
                [array.reshape(shape) for array, shape in zip(arrays, shapes, strict=True)]
            )
        for part, layer in parts.items():
            backbone.get_layer(f"{prefix}_{part}").set_weights(layer.get_weights())
