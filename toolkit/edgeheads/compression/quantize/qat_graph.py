"""The graph that rounds: where its int8 file stores integers, and how that computes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras

from edgeheads.compression.graph import copy_once, rewrite
from edgeheads.compression.quantize.fake_quantize import FakeQuantize, Integers, Term
from edgeheads.compression.quantize.quantized_layers import QUANTIZED

__all__ = ["rounding_graph"]

# {class of a layer or of an operation of `keras.ops`: (name for `Integers`, number of inputs)}
_OPERATIONS = {
    "Add": ("add", 2),
    "Multiply": ("multiply", 2),
    "GlobalAveragePooling2D": ("mean", 1),
}

# Their output's values are among those of their input, or zero.
_PASSING = (
    keras.layers.Cropping2D,
    keras.layers.Dropout,
    keras.layers.Flatten,
    keras.layers.MaxPooling2D,
    keras.layers.Permute,
    keras.layers.Reshape,
    keras.layers.SpatialDropout2D,
    keras.layers.ZeroPadding2D,
)

# What may stand between a sum of integers and where it is rounded: the file clips the result.
_CLIPS = (
    keras.activations.linear,
    keras.activations.relu,
    keras.activations.relu6,
)


def rounding_graph(
    folded: keras.Model,
    rounding: Mapping[int, FakeQuantize],
    ties: Mapping[int, str],
    per_channel: bool,
) -> keras.Model:
    """Return the model that rounds.

    Args:
        folded: what it is made of.
        rounding: {place in `calls(folded)`: what rounds the output}.
        ties: {place: where a value halfway between two goes}, of those that differ.
        per_channel: of the kernels' scales.
    """
    return rewrite(folded, *_Rounding(rounding, ties, per_channel).visitors)


class _Rounding:
    """Builds the graph, and knows of each tensor in it which integers the file has in its place.

    Tensors are known by their ids, and kept, so that these stay their own.
    """

    def __init__(
        self, rounding: Mapping[int, FakeQuantize], ties: Mapping[int, str], per_channel: bool
    ) -> None:
        self._rounding = rounding
        self._ties = ties
        self._per_channel = per_channel
        self._place = -1
        self._keep = copy_once()
        self._twins: dict[str, Any] = {}
        # {id: (rounded tensor, its step)}
        self._steps: dict[int, tuple[Any, Any]] = {}
        # {id: (tensor, the terms it is a sum of, unless a clip changed it)}
        self._sums: dict[int, tuple[Any, list[Term]]] = {}

    @property
    def visitors(self) -> tuple[Any, Any]:
        """What `rewrite` takes."""
        return self._compute, self._round

    def _compute(self, layer: Any, *args: Any, **kwargs: Any) -> Any:
        if type(layer) in QUANTIZED:
            return self._quantized(layer, *args, **kwargs)
        return self._keep(layer, *args, **kwargs)

    def _quantized(self, layer: Any, *args: Any, **kwargs: Any) -> Any:
        if layer.name not in self._twins:
            config = {**layer.get_config(), "per_channel": self._per_channel}
            twin = QUANTIZED[type(layer)].from_config(config)
            twin.trainable = layer.trainable
            self._twins[layer.name] = twin
        _, step = self._steps.get(id(args[0]), (None, None))
        if step is None:
            return self._twins[layer.name](*args, **kwargs)
        result, whole, size = self._twins[layer.name](*args, **kwargs, step=step)
        self._sums[id(result)] = result, [(whole, size)]
        return result

    def _terms(self, layer: Any, inputs: list[Any]) -> list[Term]:
        """Return what the file adds up in an operation without weights; empty where unknown."""
        operation, count = _OPERATIONS.get(type(layer).__name__, ("", 0))
        if (
            not operation
            or len(inputs) != count
            or any(id(one) not in self._steps for one in inputs)
        ):
            return []
        integers = Integers(
            operation, bool(getattr(layer, "keepdims", False)), name=f"integers_{self._place}"
        )
        terms: list[Term] = integers(inputs, [self._steps[id(one)][1] for one in inputs])
        return terms

    def _round(self, layer: Any, tensor: Any, *args: Any) -> Any:
        self._place += 1
        if isinstance(layer, _PASSING):
            self._hand_on(self._steps, args[0], tensor)
        elif _is_clip(layer):
            self._hand_on(self._sums, args[0], tensor)
        elif terms := self._terms(layer, keras.tree.flatten(args)):
            self._sums[id(tensor)] = tensor, terms
        if self._place not in self._rounding:
            return tensor
        options: dict[str, Any] = {}
        if self._place in self._ties:
            options["ties"] = self._ties[self._place]
        elif id(tensor) in self._sums:
            options["terms"] = self._sums[id(tensor)][1]
        rounded, step = self._rounding[self._place](tensor, **options)
        self._steps[id(rounded)] = rounded, step
        return rounded

    @staticmethod
    def _hand_on(known: dict[int, tuple[Any, Any]], source: Any, result: Any) -> None:
        if id(source) in known:
            known[id(result)] = result, known[id(source)][1]


def _is_clip(layer: Any) -> bool:
    if isinstance(layer, keras.layers.ReLU):
        return bool(layer.negative_slope == 0 and layer.threshold == 0)
    return isinstance(layer, keras.layers.Activation) and layer.activation in _CLIPS
