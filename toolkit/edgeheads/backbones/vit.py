"""Vision Transformers as flat graphs of stock layers; their weights come from KerasHub."""

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

_SCALING = InputScaling.uniform(1 / 127.5, -1.0)

# A symbolic keras.KerasTensor.
Tensor = Any


@dataclass(frozen=True)
class _Variant:
    patch: int
    layers: int
    dim: int
    heads: int
    # The preset that "imagenet" stands for, if there is one.
    imagenet: str | None = None


# Dosovitskiy et al. 2021, table 1; tiny and small: Touvron et al. 2021 (DeiT), table 1.
_VARIANTS = {
    "vit_tiny_patch16": _Variant(16, 12, 192, 3),
    "vit_small_patch16": _Variant(16, 12, 384, 6),
    "vit_base_patch16": _Variant(16, 12, 768, 12, "vit_base_patch16_224_imagenet"),
    "vit_base_patch32": _Variant(32, 12, 768, 12, "vit_base_patch32_384_imagenet"),
    "vit_large_patch16": _Variant(16, 24, 1024, 16, "vit_large_patch16_224_imagenet"),
    # For tests.
    "tiny_vit": _Variant(16, 2, 32, 2),
}


def create(
    name: str, input_shape: tuple[int, int, int], *, width: float, weights: str | Path | None
) -> Backbone:
    """Return the encoder of a Vision Transformer: tokens, a class token in front.

    The sizes are names; there is no other width. Weights may also be a preset of KerasHub's
    ViTBackbone, which then must be installed. Its position embeddings are for one image size.

    Source: Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words: Transformers for Image
        Recognition at Scale".
    """
    variant = _VARIANTS[name]
    require_width(name, width, (1.0,))
    require_sides(name, input_shape, variant.patch)
    return flat_or_preset(
        name,
        weights,
        build=lambda: _build(name, input_shape, variant),
        hub_class="ViTBackbone",
        copy=lambda source, backbone, preset: _copy(source, backbone, variant, preset),
        imagenet=variant.imagenet,
    )


def _build(name: str, input_shape: tuple[int, int, int], variant: _Variant) -> Backbone:
    height, width, _ = input_shape
    image = keras.Input(input_shape, name="image")
    x = _embed(image, (height // variant.patch, width // variant.patch), variant)
    for index in range(variant.layers):
        x = _block(x, variant, f"block_{index}")
    x = keras.layers.LayerNormalization(epsilon=1e-6, name="norm")(x)
    return Backbone(
        image, {"tokens": x}, scaling=_SCALING, strides={"tokens": variant.patch}, name=name
    )


def _embed(image: Tensor, grid: tuple[int, int], variant: _Variant) -> Tensor:
    """Class token and patches [B, 1 + N, dim], with their positions.

    One stock layer does all of it: each patch times one matrix, plus a bias of each position's
    own. The class token is the bias of a patch of zeros.
    """
    (rows, columns), patch = grid, variant.patch
    x = keras.layers.Reshape((rows, patch, columns, patch * 3), name="rows")(image)
    x = keras.layers.Permute((1, 3, 2, 4), name="columns")(x)
    x = keras.layers.Reshape((rows * columns, patch * patch * 3), name="patches")(x)
    x = keras.layers.ZeroPadding1D((1, 0), name="class_token")(x)
    return keras.layers.EinsumDense(
        "bnp,pd->bnd",
        output_shape=(1 + rows * columns, variant.dim),
        bias_axes="nd",
        bias_initializer=keras.initializers.RandomNormal(stddev=0.02),
        name="embedding",
    )(x)


def _block(x: Tensor, variant: _Variant, name: str) -> Tensor:
    y = keras.layers.LayerNormalization(epsilon=1e-6, name=f"{name}_attention_norm")(x)
    attention = keras.layers.MultiHeadAttention(
        variant.heads, variant.dim // variant.heads, name=f"{name}_attention"
    )
    x = keras.layers.Add(name=f"{name}_attention_add")([x, attention(y, y)])
    y = keras.layers.LayerNormalization(epsilon=1e-6, name=f"{name}_mlp_norm")(x)
    y = keras.layers.Dense(4 * variant.dim, activation="gelu", name=f"{name}_mlp_expand")(y)
    y = keras.layers.Dense(variant.dim, name=f"{name}_mlp_reduce")(y)
    return keras.layers.Add(name=f"{name}_mlp_add")([x, y])


def _copy(source: keras.Model, backbone: Backbone, variant: _Variant, preset: str) -> None:
    """Fill the backbone with the weights of KerasHub's ViTBackbone."""
    tokens = backbone.pyramid["tokens"]
    received = (source.patch_size[0], source.num_layers, source.hidden_dim, source.num_heads)
    wanted = (variant.patch, variant.layers, variant.dim, variant.heads)
    if received != wanted or not source.use_class_token:
        raise EdgeheadsError(
            f"preset {preset!r} is no {backbone.name}: expected patch size, layers, dimensions "
            f"and heads {wanted} and a class token, received {received}"
        )
    if source.output.shape[1:] != backbone.output["tokens"].shape[1:]:
        raise EdgeheadsError(
            f"preset {preset!r} has position embeddings for {source.image_shape[0]}x"
            f"{source.image_shape[1]} pixels, the backbone's grid is {tokens.grid}; "
            f"use input_shape {tuple(source.image_shape)}"
        )
    embedding = source.get_layer("vit_patching_and_embedding")
    kernel, *patch_bias = embedding.patch_embedding.get_weights()
    (bias,) = embedding.position_embedding.get_weights()
    bias[0] += np.asarray(embedding.class_token)[0, 0]
    bias[1:] += patch_bias[0] if patch_bias else 0.0
    backbone.get_layer("embedding").set_weights([kernel.reshape(-1, variant.dim), bias])
    encoder = source.get_layer("vit_encoder")
    for index, block in enumerate(encoder.encoder_layers):
        parts = {
            "attention_norm": block.layer_norm_1,
            "attention": block.mha,
            "mlp_norm": block.layer_norm_2,
            "mlp_expand": block.mlp.dense_1,
            "mlp_reduce": block.mlp.dense_2,
        }
        for part, layer in parts.items():
            backbone.get_layer(f"block_{index}_{part}").set_weights(layer.get_weights())
    backbone.get_layer("norm").set_weights(encoder.layer_norm.get_weights())
