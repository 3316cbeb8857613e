"""Quantization-aware training: a float model that learns what survives the rounding to int8."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from edgeheads.compression.equalization import equalize
from edgeheads.compression.fold import fold_batch_norms
from edgeheads.compression.graph import (
    OutputsOf,
    calls,
    copy_layer,
    copy_once,
    name_outputs,
    rewrite,
)
from edgeheads.compression.prune.magnitude import KeepZeros
from edgeheads.compression.quantize.calibration import (
    DEFAULT_CALIBRATION,
    Images,
    Range,
    measure_ranges,
)
from edgeheads.compression.quantize.fake_quantize import FakeQuantize
from edgeheads.compression.quantize.qat_constants import with_trained_constants
from edgeheads.compression.quantize.qat_graph import rounding_graph
from edgeheads.compression.quantize.qat_match import (
    float_file,
    match_tensors,
    share_ranges,
)
from edgeheads.compression.quantize.quantized_layers import QUANTIZED
from edgeheads.compression.quantize.quantizer import quantize_float_model, quantize_with_images
from edgeheads.compression.quantize.schemes import get_scheme
from edgeheads.errors import EdgeheadsError
from edgeheads.export.flatgraph import FlatGraph
from edgeheads.tasks.base import Array

__all__ = ["Choice", "QuantizeAware", "choose", "quantize_aware"]

# What the file computes as part of the operation in front of it.
_FUSED = (keras.activations.linear, keras.activations.relu, keras.activations.relu6)

# How the file's kernels round averages; see TIES.
_TIES = {"RESIZE_BILINEAR": "up", "AVERAGE_POOL_2D": "away"}


@dataclass(frozen=True)
class QuantizeAware:
    """A model that rounds as its int8 file will, and what makes the file of it.

    Attributes:
        model: to be trained like any other: with `compile` and `fit`, or a loop. Inputs and
            outputs are those of the model it was made of.
        folded: the float model it was made of, batch normalization folded, not trained further.
        rounds: {place in `calls(folded)`: name of the `FakeQuantize` layer behind it}.
        images: calibration inputs, for the few tensors that only the file has.
        unrounded: layers with weights that the file rounds and training does not.
        per_channel: whether each channel of a kernel has a scale of its own.
        outputs_of: what of the model becomes the file; None: all that it returns.
    """

    model: keras.Model
    folded: keras.Model
    rounds: Mapping[int, str]
    images: Images
    unrounded: tuple[str, ...]
    per_channel: bool = True
    outputs_of: OutputsOf | None = None

    @property
    def finite(self) -> bool:
        """Whether all weights and ranges are numbers, as they are unless training diverged."""
        return all(
            bool(keras.ops.all(keras.ops.isfinite(variable))) for variable in self.model.weights
        )

    def callbacks(self) -> list[keras.callbacks.Callback]:
        """Return what `fit` needs so that weights that are zero now, of pruning, stay so."""
        return [KeepZeros(self.model)]

    def float_model(self) -> keras.Model:
        """Return a model of stock layers with the weights as they are now, nothing rounded."""
        twin = rewrite(self.folded, copy_once())
        for layer in twin.layers:
            if layer.weights:
                layer.set_weights(self.model.get_layer(layer.name).get_weights())
        return twin

    def file_outputs(self) -> dict[str, Any]:
        """Return {name in the file: tensor of `model` that holds the same values}."""
        if self.outputs_of is None:
            return name_outputs(self.model)
        old = list(calls(self.folded))
        labels = [self.rounds.get(place, call.layer.name) for place, call in enumerate(old)]
        places = {id(call.outputs[0]): place for place, call in enumerate(old)}
        # A layer that several levels share is called as often, in the same order.
        found: dict[str, list[Any]] = {}
        for call in calls(self.model):
            found.setdefault(call.layer.name, []).append(call.outputs[0])
        chosen = {}
        for name, tensor in self.outputs_of(self.folded).items():
            place = places[id(tensor)]
            chosen[name] = found[labels[place]][labels[:place].count(labels[place])]
        return chosen

    def restore(self) -> None:
        """Give the model the weights and ranges that it began with."""
        for name in set(self.rounds.values()):
            self.model.get_layer(name).reset()
        for layer in self.folded.layers:
            if layer.weights:
                self.model.get_layer(layer.name).set_weights(layer.get_weights())

    def to_tflite(self, scheme: str = "int8") -> bytes:
        """Return the .tflite file that computes as the model does now.

        Args:
            scheme: one with int8 activations.

        Raises:
            EdgeheadsError: another scheme, or weights that are no numbers.
            RuntimeFailureError: the converter refuses the graph.
        """
        chosen = get_scheme(scheme)
        if chosen.activations != "int8":
            raise EdgeheadsError(
                "quantization-aware training rounds activations to int8, received scheme "
                f"{scheme!r}; choose int8, int8-uint8-io or int8-float-io"
            )
        if not self.finite:
            raise EdgeheadsError(
                "quantization-aware training diverged: its weights hold NaN or infinite values; "
                "train with a lower learning rate, or check the data, and take the float model "
                "(`folded`) meanwhile"
            )
        model = self.float_model()
        content = float_file(model, self.outputs_of)
        graph = FlatGraph(content)
        ranges, groups, fixed = share_ranges(graph, measure_ranges(content, self.images, "min-max"))
        places = match_tensors(model, content, _first(self.images), self.outputs_of)
        learned = {
            groups[tensor]: self._range(self.rounds[place])
            for tensor, place in places.items()
            if place in self.rounds and groups[tensor] not in fixed
        }
        final = {tensor: learned.get(groups[tensor], one) for tensor, one in ranges.items()}
        quantized = quantize_float_model(content, final, chosen, per_channel=self.per_channel)
        return with_trained_constants(content, quantized)

    def _range(self, name: str) -> Range:
        low, high = self.model.get_layer(name).range()
        return Range(float(low), float(high))


def quantize_aware(
    model: keras.Model,
    images: Images,
    *,
    calibration: str = DEFAULT_CALIBRATION,
    observer: str = "learned",
    per_channel: bool = True,
    outputs_of: OutputsOf | None = None,
) -> QuantizeAware:
    """Return a copy of a trained model that rounds weights and activations to int8 as it computes.

    Batch normalization is folded first, and an activation that the file computes by itself becomes
    a layer, with the name of the one it was an option of. Kernels are rounded symmetrically, biases
    to the products of steps that the file adds them to; activations asymmetrically, behind the
    layers whose output the int8 file keeps: a fused activation's, not the convolution's in front of
    it. Tensors with one scale in the file have one in training (Jacob et al. 2018, "Quantization
    and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", section 3).

    Args:
        model: a functional model of stock layers with one input; models inside it are laid open.
            It is not changed.
        images: calibration inputs [1, H, W, C]; the same ones at every call.
        calibration: how ranges start; a name from CALIBRATIONS.
        observer: how they go on; a name from OBSERVERS.
        per_channel: give each output channel of a kernel a scale of its own; False gives the
            kernel one, for devices that take no more.
        outputs_of: what of the model becomes the file, such as a task's edge outputs; what is
            computed from these stays float. None: all that the model returns.

    Raises:
        EdgeheadsError: custom layers, images that cannot be used, an unknown method or observer.
        RuntimeFailureError: the converter refuses the graph.
    """
    folded = _with_activations_apart(fold_batch_norms(model))
    _require_stock(folded)
    if not per_channel:
        # Steps that fit the largest channel round small ones to zero, and training moves no
        # weight as far as it would take to bring them back.
        folded = equalize(folded, images=images).model
    content = float_file(folded, outputs_of)
    graph = FlatGraph(content)
    ranges, groups, fixed = share_ranges(graph, measure_ranges(content, images, calibration))
    places = match_tensors(folded, content, _first(images), outputs_of)
    rounding: dict[int, FakeQuantize] = {}
    of_group: dict[int, FakeQuantize] = {}
    for tensor, place in sorted(places.items(), key=lambda item: item[1]):
        group, one = groups[tensor], ranges[tensor]
        if group not in of_group:
            of_group[group] = FakeQuantize(
                one.low,
                one.high,
                "fixed" if group in fixed else observer,
                name=f"round_{len(of_group)}",
            )
        rounding[place] = of_group[group]

    return QuantizeAware(
        rounding_graph(folded, rounding, _ties(graph, places), per_channel),
        folded,
        {place: layer.name for place, layer in rounding.items()},
        images,
        tuple(
            layer.name
            for layer in folded.layers
            if type(layer) not in QUANTIZED and any(len(one.shape) > 1 for one in layer.weights)
        ),
        per_channel,
        outputs_of,
    )


def _ties(graph: FlatGraph, places: Mapping[int, int]) -> dict[int, str]:
    """Return where halves go in operations whose results lie there often: averages of integers."""
    return {
        places[tensor]: _TIES[graph.kind(operation)]
        for operation in graph.operations
        for tensor in map(int, operation.outputs)
        if tensor in places and graph.kind(operation) in _TIES
    }


@dataclass(frozen=True)
class Choice:
    """The better of two int8 files on held-out data.

    Attributes:
        content: the file.
        quantize_aware: whether training for int8 was the better.
        before: score of the file quantized after training.
        after: score of the file of quantization-aware training; NaN where it diverged.
    """

    content: bytes
    quantize_aware: bool
    before: float
    after: float


def choose(
    aware: QuantizeAware, score: Callable[[bytes], float], *, scheme: str = "int8"
) -> Choice:
    """Return the trained file if it is better than plain quantization, which is kept otherwise.

    Where it is not, or diverged, `aware.model` gets the float model's weights back.

    Args:
        aware: trained.
        score: gives a file's metric on held-out data; more is better.
        scheme: one with int8 activations.
    """
    plain = quantize_with_images(
        float_file(aware.folded, aware.outputs_of),
        get_scheme(scheme),
        aware.images,
        per_channel=aware.per_channel,
    )
    before, after = score(plain), float("nan")
    if aware.finite:
        trained = aware.to_tflite(scheme)
        after = score(trained)
        if after > before:
            return Choice(trained, True, before, after)
    aware.restore()
    return Choice(plain, False, before, after)


def _with_activations_apart(model: keras.Model) -> keras.Model:
    """Return a copy whose layers compute one operation of the file each.

    The file rounds what a softmax or a sigmoid takes, too; only a ReLU is part of the operation in
    front of it. The activation takes the layer's name, as it gives what the layer gave.
    """
    apart = {
        layer.name: f"{layer.name}_linear"
        for layer in model.layers
        if type(layer) in QUANTIZED and layer.activation not in _FUSED
    }
    if not apart:
        return model
    keep = copy_once()
    twins: dict[str, tuple[Any, Any]] = {}

    def visit(layer: Any, *args: Any, **kwargs: Any) -> Any:
        if layer.name not in apart:
            return keep(layer, *args, **kwargs)
        if layer.name not in twins:
            linear = copy_layer(layer, name=apart[layer.name], activation="linear")
            twins[layer.name] = (
                linear,
                keras.layers.Activation(layer.activation, name=layer.name),
            )
        linear, activation = twins[layer.name]
        return activation(linear(*args, **kwargs))

    split = rewrite(model, visit)
    for name, other in apart.items():
        split.get_layer(other).set_weights(model.get_layer(name).get_weights())
    return split


def _require_stock(model: keras.Model) -> None:
    custom = [
        f"{layer.name} ({type(layer).__name__})"
        for layer in model.layers
        if not type(layer).__module__.startswith("keras.")
    ]
    if custom:
        raise EdgeheadsError(
            "quantization-aware training needs stock Keras layers, received custom ones: "
            f"{', '.join(custom)}; build these parts of stock layers"
        )


def _first(images: Images) -> Array:
    return np.asarray(next(iter(images())), np.float32)
