"""Attention branches for feature maps."""

from __future__ import annotations

import math

import keras

from edgeheads.errors import unknown_name
from edgeheads.heads.layers.inputs import known_size
from edgeheads.heads.layers.norm import normalize
from edgeheads.heads.layers.part import Part, Tensor, prefixed

__all__ = ["ATTENTION_TYPES", "MAX_KEYS", "attend"]

# Keys and values are average-pooled until a map has at most this many positions, so that the
# score matrix of a 56x56 map is 3136 x 196 instead of 3136 x 3136 (Wang et al. 2021, PVT).
MAX_KEYS = 196

_HEAD_DIM = 32
# Ye et al. 2024 start lambda at 0.8 in all but the first layers.
_LAMBDA_INIT = 0.8

_POSITIONS = "attention over positions (attention_type 'cbam' is the one without)"


def attend(
    part: Part, x: Tensor, kind: str, name: str, *, normalization: str, dropout: float
) -> Tensor:
    """Return x + attention(norm(x)) for a map [B, H, W, C].

    Args:
        kind: "multi_head" (Vaswani et al. 2017), "cbam" (Woo et al. 2018), or "differential"
            (Ye et al. 2024, "Differential Transformer"; lambda is one learned number per head).

    Raises:
        EdgeheadsError: unknown kind; or a map whose height or width is not known when the head is
            built, for the kinds that attend over positions.
    """
    if kind not in _BRANCHES:
        raise unknown_name("attention_type", kind, ATTENTION_TYPES)
    part = prefixed(part, name)
    y = normalize(part, x, normalization, "norm")
    y = _BRANCHES[kind](part, y)
    if dropout:
        y = part(keras.layers.Dropout, "dropout", rate=dropout)(y)
    return part(keras.layers.Add, "add")([x, y])


def _multi_head(part: Part, x: Tensor) -> Tensor:
    height, width = known_size(x, _POSITIONS)
    channels = x.shape[-1]
    heads = max(1, channels // _HEAD_DIM)
    queries = part(keras.layers.Reshape, "queries", target_shape=(height * width, channels))(x)
    y = part(
        keras.layers.MultiHeadAttention,
        "attention",
        num_heads=heads,
        key_dim=max(1, channels // heads),
        # A bias on the keys adds the same number to a whole row of scores: softmax cancels it.
        use_bias=False,
    )(queries, _pooled_tokens(part, x))
    return part(keras.layers.Reshape, "map", target_shape=(height, width, channels))(y)


def _differential(part: Part, x: Tensor) -> Tensor:
    """(softmax(Q1 K1) - lambda softmax(Q2 K2)) V, each head normalized by its RMS."""
    height, width = known_size(x, _POSITIONS)
    channels = x.shape[-1]
    heads = max(1, channels // (2 * _HEAD_DIM))
    dim = max(1, channels // heads)
    queries = part(keras.layers.Reshape, "queries", target_shape=(height * width, channels))(x)
    tokens = _pooled_tokens(part, x)

    def per_head(x: Tensor, name: str, use_bias: bool) -> Tensor:
        dense = part(keras.layers.Dense, name, units=heads * dim, use_bias=use_bias)
        y = part(keras.layers.Reshape, f"{name}_split", target_shape=(x.shape[1], heads, dim))(
            dense(x)
        )
        return part(keras.layers.Permute, f"{name}_heads", dims=(2, 1, 3))(y)

    def scores(which: int) -> Tensor:
        q = per_head(queries, f"query_{which}", use_bias=False)
        # No bias on the keys here either.
        k = per_head(tokens, f"key_{which}", use_bias=False)
        product = keras.ops.matmul(q, keras.ops.transpose(k, (0, 1, 3, 2)))
        scaled = part(keras.layers.Rescaling, f"scale_{which}", scale=1 / math.sqrt(dim))(product)
        return part(keras.layers.Softmax, f"softmax_{which}")(scaled)

    # One weight per head is a 1x1 depthwise convolution with the heads as channels.
    weighted = part(
        keras.layers.DepthwiseConv2D,
        "lambda",
        kernel_size=1,
        use_bias=False,
        depthwise_initializer=keras.initializers.Constant(_LAMBDA_INIT),
    )(part(keras.layers.Permute, "heads_last", dims=(2, 3, 1))(scores(2)))
    second = part(keras.layers.Permute, "heads_first", dims=(3, 1, 2))(weighted)
    difference = part(keras.layers.Subtract, "difference")([scores(1), second])
    mixed = keras.ops.matmul(difference, per_head(tokens, "value", use_bias=True))
    mixed = part(keras.layers.RMSNormalization, "head_norm", epsilon=1e-6)(mixed)
    mixed = part(keras.layers.Rescaling, "head_scale", scale=1 - _LAMBDA_INIT)(mixed)
    merged = part(keras.layers.Permute, "merge", dims=(2, 1, 3))(mixed)
    merged = part(keras.layers.Reshape, "merged", target_shape=(height, width, heads * dim))(merged)
    return part(keras.layers.Conv2D, "output", filters=channels, kernel_size=1)(merged)


def _cbam(part: Part, x: Tensor) -> Tensor:
    """Weigh channels, then positions, each by a sigmoid of pooled features."""
    channels = x.shape[-1]
    squeeze = part(
        keras.layers.Conv2D,
        "channel_squeeze",
        filters=max(4, channels // 16),
        kernel_size=1,
        activation="relu",
    )
    excite = part(keras.layers.Conv2D, "channel_excite", filters=channels, kernel_size=1)
    mean = part(keras.layers.GlobalAveragePooling2D, "channel_mean", keepdims=True)(x)
    peak = part(keras.layers.GlobalMaxPooling2D, "channel_max", keepdims=True)(x)
    both = part(keras.layers.Add, "channel_sum")([excite(squeeze(mean)), excite(squeeze(peak))])
    weights = part(keras.layers.Activation, "channel_weights", activation="sigmoid")(both)
    x = part(keras.layers.Multiply, "channel_scale")([x, weights])

    pooled = part(keras.layers.Concatenate, "position_pool")(
        [keras.ops.mean(x, axis=-1, keepdims=True), keras.ops.max(x, axis=-1, keepdims=True)]
    )
    weights = part(
        keras.layers.Conv2D,
        "position_weights",
        filters=1,
        kernel_size=7,
        padding="same",
        activation="sigmoid",
    )(pooled)
    return part(keras.layers.Multiply, "position_scale")([x, weights])


_BRANCHES = {"multi_head": _multi_head, "cbam": _cbam, "differential": _differential}

ATTENTION_TYPES = tuple(_BRANCHES)


def _pooled_tokens(part: Part, x: Tensor) -> Tensor:
    """Return at most `MAX_KEYS` tokens [B, N, C] of the map, average-pooled where it has more."""
    height, width = known_size(x, _POSITIONS)
    channels = x.shape[-1]
    pool = math.ceil(math.sqrt(height * width / MAX_KEYS))
    if pool > 1:
        x = part(
            keras.layers.AveragePooling2D, "key_pool", pool_size=pool, strides=pool, padding="same"
        )(x)
        height, width = math.ceil(height / pool), math.ceil(width / pool)
    return part(keras.layers.Reshape, "keys", target_shape=(height * width, channels))(x)
