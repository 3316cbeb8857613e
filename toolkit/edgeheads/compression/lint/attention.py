"""Attention over positions."""

from __future__ import annotations

from collections.abc import Iterator

from edgeheads.compression.lint.activations import activation_of
from edgeheads.compression.lint.rule import Network, Rule, kind_of

__all__ = ["RULES"]

_LAYERS = (
    *("MultiHeadAttention", "GroupedQueryAttention", "Attention", "AdditiveAttention"),
    "DotProductAttention",
)
# What reads the weights of attention: a product of two computed tensors.
_PRODUCTS = ("Matmul", "Einsum", "Dot", "Multiply", "Tensordot")
_PASSING = ("Dropout", "Reshape", "Transpose", "Permute", "Cast", "Subtract", "Add", "Squeeze")


def _softmax(network: Network) -> Iterator[tuple[str, str]]:
    for call in network.calls:
        if kind_of(call.layer) in _LAYERS:
            yield call.layer.name, f"attends within {tuple(call.inputs[0].shape[1:])}"
            continue
        if activation_of(call.layer) != "softmax":
            continue
        readers = list(network.readers(call))
        for _ in range(4):
            readers += [
                after
                for one in readers
                if kind_of(one.layer) in _PASSING
                for after in network.readers(one)
                if after not in readers
            ]
        product = next((one for one in readers if kind_of(one.layer) in _PRODUCTS), None)
        if product is not None:
            yield call.layer.name, f"its weights are multiplied in {product.layer.name}"


RULES = (
    Rule(
        "softmax-attention",
        "Softmax attention",
        "warning",
        "the weights of many positions are smaller than 1/256, the step of int8 softmax, and "
        "become 0; the products of two computed tensors have no fast int8 kernel",
        "convolutions with a larger kernel, or a pooled gate; else keep the layer in float "
        "(edgeheads sensitivity --max-drop)",
        _softmax,
    ),
)
