"""Batch normalization folded into the layer in front of it, which then computes the same."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from edgeheads.compression.graph import Call, calls, copy_layer, flatten, rewrite
from edgeheads.tasks.base import Array

__all__ = [
    "fold_batch_norms",
    "foldable_norms",
    "has_plain_weights",
    "laid_open",
    "scale_channels",
]

_CONVS = (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)
_DEPTHWISE = (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)
_SEPARABLE = (keras.layers.SeparableConv1D, keras.layers.SeparableConv2D)
_TRANSPOSED = (
    keras.layers.Conv1DTranspose,
    keras.layers.Conv2DTranspose,
    keras.layers.Conv3DTranspose,
)
_LINEAR = (*_CONVS, *_DEPTHWISE, *_SEPARABLE, *_TRANSPOSED, keras.layers.Dense)


def fold_batch_norms(model: keras.Model) -> keras.Model:
    """Return a copy in which a normalization right behind a linear layer is part of its weights.

    With the statistics of inference, y = gamma (w x + b - mean) / sqrt(var + epsilon) + beta is
    one linear layer (Jacob et al. 2018, "Quantization and Training of Neural Networks for
    Efficient Integer-Arithmetic-Only Inference", section 3.2). Convolutions, depthwise, separable
    and transposed ones and dense layers take it up; a normalization that follows anything else, or
    a layer whose output something else reads too, stays. The linear layer keeps its name.

    Args:
        model: a functional model; models inside it are laid open. It is not changed.

    Raises:
        EdgeheadsError: see `flatten`.
    """
    flat = laid_open(model)
    norms = foldable_norms(flat)
    dropped = {norm.name for norm in norms.values()}
    twins: dict[str, keras.layers.Layer] = {}

    def visit(layer: keras.layers.Layer, *args: Any, **kwargs: Any) -> Any:
        if layer.name in dropped:
            return args[0]
        if layer.name not in twins:  # a layer that several levels share stays one layer
            changes = {"use_bias": True} if layer.name in norms else {}
            twins[layer.name] = copy_layer(layer, **changes)
        return twins[layer.name](*args, **kwargs)

    folded = rewrite(flat, visit)
    for name, norm in norms.items():
        weights = _folded_weights(flat.get_layer(name), norm)
        folded.get_layer(name).set_weights(weights)
    return folded


def foldable_norms(model: keras.Model) -> dict[str, keras.layers.Layer]:
    """Return {name of a linear layer: the normalization that can become part of it}."""
    found = list(calls(model))
    consumers: dict[int, list[Call]] = {}
    for call in found:
        for tensor in call.inputs:
            consumers.setdefault(id(tensor), []).append(call)
    outputs = {id(tensor) for tensor in model.outputs}
    by_layer: dict[str, list[Call]] = {}
    for call in found:
        by_layer.setdefault(call.layer.name, []).append(call)

    norms = {}
    for name, own in by_layer.items():
        layer = own[0].layer
        if not _takes_a_norm(layer) or any(id(call.outputs[0]) in outputs for call in own):
            continue
        readers = [consumers.get(id(call.outputs[0]), []) for call in own]
        if any(len(reader) != 1 for reader in readers):
            continue
        after = {id(reader.layer): reader.layer for [reader] in readers}
        norm = next(iter(after.values()))
        # A shared layer can take up one normalization, and that one must follow no other layer.
        if len(after) == 1 and len(by_layer[norm.name]) == len(own) and _is_last_axis(norm, own[0]):
            norms[name] = norm
    return norms


def scale_channels(layer: keras.layers.Layer, weights: list[Array], factor: Array) -> list[Array]:
    """Return a linear layer's weights such that its output channels are `factor` times as large.

    Args:
        layer: one that `fold_batch_norms` knows.
        weights: kernels, and the bias if it has one, in Keras' order.
        factor: [channels of the output].
    """
    *kernels, last = weights[:-1] if layer.use_bias else weights
    if isinstance(layer, _DEPTHWISE):
        last = last * factor.reshape(last.shape[-2:])
    elif isinstance(layer, _TRANSPOSED):
        last = last * factor[:, None]
    else:
        last = last * factor
    return [*kernels, last, *([weights[-1] * factor] if layer.use_bias else [])]


def has_plain_weights(layer: Any) -> bool:
    """Whether a layer's kernel is all that it multiplies by: no LoRA, not quantized by Keras."""
    return (
        not getattr(layer, "lora_enabled", False)
        and getattr(layer, "quantization_mode", None) is None
    )


def laid_open(model: keras.Model) -> keras.Model:
    """Return the model, or a flat copy where it holds other models.

    Unlike `flatten` it lets layers pass that are called more than once.
    """
    nested = not hasattr(model, "_nodes_by_depth") or isinstance(model, keras.Sequential)
    if nested or any(isinstance(layer, keras.Model) for layer in model.layers):
        return flatten(model)
    return model


def _takes_a_norm(layer: Any) -> bool:
    return (
        isinstance(layer, _LINEAR)
        and layer.activation is keras.activations.linear
        and getattr(layer, "data_format", "channels_last") == "channels_last"
        and has_plain_weights(layer)
    )


def _is_last_axis(norm: Any, call: Call) -> bool:
    if not isinstance(norm, keras.layers.BatchNormalization):
        return False
    rank = len(call.outputs[0].shape)
    return norm.axis % rank == rank - 1


def _folded_weights(layer: keras.layers.Layer, norm: keras.layers.Layer) -> list[Array]:
    """Return [kernels..., bias], computed in float64."""
    weights = [np.asarray(one, np.float64) for one in layer.get_weights()]
    mean, variance = _double(norm.moving_mean), _double(norm.moving_variance)
    factor = 1.0 / np.sqrt(variance + norm.epsilon)
    if norm.scale:
        factor = factor * _double(norm.gamma)
    scaled = scale_channels(layer, weights, factor)
    bias = (scaled.pop() if layer.use_bias else 0.0) - mean * factor
    if norm.center:
        bias = bias + _double(norm.beta)
    return [*scaled, bias]


def _double(variable: Any) -> Array:
    return np.asarray(ops.convert_to_numpy(variable), np.float64)
