"""Quantization-aware training: a Keras model that computes as its int8 file will."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from edgeheads.compression.fold import fold_batch_norms
from edgeheads.compression.graph import Call, calls, copy_layer, rewrite
from edgeheads.compression.quantize.calibration import (
    DEFAULT_CALIBRATION,
    Images,
    Range,
    measure_ranges,
    pass_on,
)
from edgeheads.compression.quantize.fake_quantize import OBSERVERS, QUANTIZED, FakeQuantize
from edgeheads.compression.quantize.quantizer import quantize_float_model
from edgeheads.compression.quantize.schemes import get_scheme
from edgeheads.errors import EdgeheadsError
from edgeheads.export.compact import compact
from edgeheads.export.flatgraph import FlatGraph, Probe
from edgeheads.export.tflite import convert_to_float_tflite
from edgeheads.tasks.base import Array

__all__ = ["QuantizeAware", "quantize_aware"]

# The layer, and which of its calls, whose output a tensor is.
Place = tuple[str, int]

# Float kernels of TensorFlow and LiteRT agree to some last bits of the largest value.
_SAME = 1e-3

# int8 gives the outputs of these a scale of its own choice, whatever was measured.
_GIVEN = {
    "LOGISTIC": Range(0.0, 255 / 256),
    "SOFTMAX": Range(0.0, 255 / 256),
    "TANH": Range(-1.0, 127 / 128),
    "L2_NORMALIZATION": Range(-1.0, 127 / 128),
}


@dataclass(frozen=True)
class QuantizeAware:
    """A model with fake quantization, to fine-tune and to convert.

    Attributes:
        model: the flat graph to train: batch norms folded, kernels and activations rounded.
            It saves and loads; `import edgeheads.compression.quantize.fake_quantize` first.
        folded: the graph that becomes the file; `float_model` puts the trained weights into it.
        outputs: {output of the file: tensor of `model`}.
        places: {output of the file: whose output of `folded` it is}.
        names: {place: the FakeQuantize layer behind it}.
        images: calibration inputs.
    """

    model: keras.Model
    folded: keras.Model
    outputs: dict[str, Any]
    places: Mapping[str, Place]
    names: Mapping[Place, str]
    images: Images

    def float_model(self) -> keras.Model:
        """Return the folded model, ordinary layers only, with the weights as trained."""
        for layer in self.folded.layers:
            if layer.weights:
                layer.set_weights(self.model.get_layer(layer.name).get_weights())
        return self.folded

    def ranges(self) -> dict[Place, Range]:
        """Return the range of every rounded activation as it is now."""
        found = {}
        for place, name in self.names.items():
            low, high = self.model.get_layer(name).range()
            found[place] = Range(float(low), float(high))
        return found

    def to_tflite(self, precision: str = "int8") -> bytes:
        """Return the int8 file, with the weights and ranges as trained.

        Biases are not corrected: the training has already seen what rounding does to the means.

        Args:
            precision: a name from SCHEMES with int8 activations.

        Raises:
            EdgeheadsError: another precision.
            RuntimeFailureError: the quantizer refuses the graph.
        """
        scheme = get_scheme(precision)
        if scheme.activations != "int8":
            raise EdgeheadsError(
                f"quantization-aware training is for int8 activations, received {precision!r}"
            )
        folded = self.float_model()
        outputs = _tensors(folded)
        content = convert_to_float_tflite(
            folded.inputs[0], {name: outputs[place] for name, place in self.places.items()}
        )
        graph = FlatGraph(content)
        ranges = measure_ranges(content, self.images, DEFAULT_CALIBRATION)
        learned = self.ranges()
        for place, tensors in _match(folded, graph, self.images).items():
            if place in learned:
                ranges.update(dict.fromkeys(tensors, learned[place]))
        pass_on(graph, ranges)
        return compact(quantize_float_model(content, ranges, scheme))


def quantize_aware(
    model: keras.Model,
    images: Images,
    *,
    outputs: Mapping[str, Any] | None = None,
    observer: str = "learned",
    calibration: str = DEFAULT_CALIBRATION,
) -> QuantizeAware:
    """Return a copy of a model that rounds where its int8 file will.

    Batch norms are folded into the layers in front of them. Which activations int8 rounds, the
    float .tflite file says: a convolution and its ReLU are one operation there, so that only the
    ReLU's output is rounded; reshapes, pooling and padding keep the scale of their input. Keras
    tensors are matched with the file's by their values on one image. (Jacob et al. 2018,
    "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
    Inference"; Krishnamoorthi 2018, "Quantizing deep convolutional networks", sections 3 and 4.)

    Args:
        model: a functional model of stock layers, with one input. It is not changed.
        images: gives real-valued inputs [1, H, W, 3], the same ones at every call.
        outputs: {name in the file: symbolic tensor of `model`}; default: the model's outputs.
        observer: how ranges go on from those measured; see `FakeQuantize`.
        calibration: how they are measured; a name from CALIBRATIONS.

    Raises:
        EdgeheadsError: custom layers, layers whose kernels cannot be rounded, an unknown observer,
            or images that cannot be used.
    """
    if observer not in OBSERVERS:
        raise EdgeheadsError(
            f"observer must be one of {', '.join(OBSERVERS)}, received {observer!r}"
        )
    folded = fold_batch_norms(model)
    _require_known(folded)
    wanted = _places(model, outputs)
    tensors = _tensors(folded)
    content = convert_to_float_tflite(
        folded.inputs[0], {name: tensors[place] for name, place in wanted.items()}
    )
    graph = FlatGraph(content)
    ranges = measure_ranges(content, images, calibration)
    passed = pass_on(graph, ranges)
    given = {
        int(tensor): _GIVEN[graph.kind(operation)]
        for operation in graph.operations
        for tensor in operation.outputs
        if graph.kind(operation) in _GIVEN
    }
    points: dict[Place, tuple[Range, str]] = {}
    for place, [tensor, *_] in _match(folded, graph, images).items():
        if tensor in given:
            points[place] = given[tensor], "fixed"
        elif tensor not in passed and tensor in ranges:
            # What pixels and scores can be does not depend on the weights in between.
            fixed = tensor in graph.inputs
            points[place] = ranges[tensor], "fixed" if fixed else observer
    rounded, names, taken = _insert(folded, points)
    chosen = {name: taken[place] for name, place in wanted.items()}
    return QuantizeAware(rounded, folded, chosen, wanted, names, images)


def _insert(
    folded: keras.Model, points: Mapping[Place, tuple[Range, str]]
) -> tuple[keras.Model, dict[Place, str], dict[Place, Any]]:
    """Return the model with layers that round, their names, and the tensors behind each place."""
    twins: dict[str, keras.layers.Layer] = {}
    times: Counter[str] = Counter()
    names: dict[Place, str] = {}
    taken: dict[Place, Any] = {}

    def visit(layer: keras.layers.Layer, *args: Any, **kwargs: Any) -> Any:
        if layer.name not in twins:
            twins[layer.name] = _rounding(layer)
        return twins[layer.name](*args, **kwargs)

    def after(layer: Any, result: Any) -> Any:
        place = layer.name, times[layer.name]
        times[layer.name] += 1
        if place in points:
            one, observer = points[place]
            names[place] = f"{layer.name}_range" + (f"_{place[1]}" if place[1] else "")
            result = FakeQuantize(one.low, one.high, observer, name=names[place])(result)
        taken[place] = result
        return result

    return rewrite(folded, visit, after), names, taken


def _rounding(layer: keras.layers.Layer) -> keras.layers.Layer:
    kind = QUANTIZED.get(type(layer))
    twin = copy_layer(layer) if kind is None else kind.from_config(layer.get_config())
    twin.trainable = layer.trainable
    if isinstance(layer, keras.layers.BatchNormalization):
        # One that could not be folded is two operations of constants in the file.
        twin.trainable = False
    return twin


def _require_known(model: keras.Model) -> None:
    """Refuse layers that are not Keras', or whose kernels would stay float in training."""
    custom = [one for one in model.layers if not type(one).__module__.startswith("keras.")]
    if custom:
        named = ", ".join(f"{one.name!r} ({type(one).__name__})" for one in custom[:5])
        raise EdgeheadsError(
            f"quantization-aware training needs a model of stock Keras layers, received {named}; "
            "express them in stock layers, or quantize after training with edgeheads quantize"
        )
    other = [
        one
        for one in model.layers
        if type(one) not in QUANTIZED and any(weight.ndim > 1 for weight in _kernels(one))
    ]
    if other:
        named = ", ".join(f"{one.name!r} ({type(one).__name__})" for one in other[:5])
        known = ", ".join(kind.__name__ for kind in QUANTIZED)
        raise EdgeheadsError(
            f"quantization-aware training rounds the kernels of {known}, received {named}; "
            "replace them, or quantize after training with edgeheads quantize"
        )


def _kernels(layer: keras.layers.Layer) -> list[Any]:
    return [weight for weight in layer.trainable_weights if weight.name != "embeddings"]


def _placed(model: keras.Model) -> Iterator[tuple[Place, Call]]:
    times: Counter[str] = Counter()
    for call in calls(model):
        yield (call.layer.name, times[call.layer.name]), call
        times[call.layer.name] += 1


def _tensors(model: keras.Model) -> dict[Place, Any]:
    """Return the output at each place; layers with several outputs have none."""
    return {place: call.outputs[0] for place, call in _placed(model) if len(call.outputs) == 1}


def _places(model: keras.Model, outputs: Mapping[str, Any] | None) -> dict[str, Place]:
    """Return whose output each output of the file is, behind folding.

    Names of layers are unique, so that a folded norm's place is the layer it became part of.
    """
    if outputs is None:
        outputs = {f"output_{i}": tensor for i, tensor in enumerate(model.outputs)}
    by_tensor = {id(tensor): place for place, tensor in _tensors(model).items()}
    kept = set(_tensors(fold_batch_norms(model)))
    found = {}
    for name, tensor in outputs.items():
        place = by_tensor.get(id(tensor))
        if place is not None and place not in kept:
            call = next(call for where, call in _placed(model) if where == place)
            place = by_tensor.get(id(call.inputs[0]))
        if place is None:
            raise EdgeheadsError(
                f"output {name!r} must be a tensor of model {model.name!r}; pass a flat model and "
                "outputs of its layers"
            )
        found[name] = place
    return found


def _match(model: keras.Model, graph: FlatGraph, images: Images) -> dict[Place, list[int]]:
    """Return {place: tensors of the file that hold the same values, in another shape perhaps}."""
    image = next(iter(images())).astype(np.float32)
    free = [tensor for tensor in graph.activations() if graph.dtype(tensor) == "float32"]
    [values] = list(Probe(graph, free).run([image]))
    tensors = _tensors(model)
    floats = {p: t for p, t in tensors.items() if keras.backend.is_float_dtype(t.dtype)}
    computed = keras.Model(model.inputs, list(floats.values())).predict_on_batch(image)
    found: dict[Place, list[int]] = {}
    for place, array in zip(floats, _as_list(computed), strict=True):
        same = [tensor for tensor in free if _is_same(values[tensor], np.asarray(array))]
        if same:
            found[place] = same
            free = [tensor for tensor in free if tensor not in same]
    return found


def _as_list(values: Any) -> Sequence[Array]:
    return values if isinstance(values, (list, tuple)) else [values]


def _is_same(one: Array, other: Array) -> bool:
    if one.size != other.size:
        return False
    difference = np.abs(one.ravel() - other.ravel()).max(initial=0.0)
    return bool(difference <= _SAME * max(float(np.abs(other).max(initial=0.0)), 1e-6))
