"""From a Keras model to the bytes of a .tflite file."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Collection, Mapping
from typing import Any

from edgeheads.compression.quantize.calibration import DEFAULT_CALIBRATION, Images
from edgeheads.compression.quantize.quantizer import quantize_with_images, reason
from edgeheads.compression.quantize.schemes import Scheme, get_scheme
from edgeheads.errors import EdgeheadsError, MissingDependencyError, RuntimeFailureError
from edgeheads.export.compact import compact
from edgeheads.export.fast_int8 import Speed
from edgeheads.nativelog import captured_native_log

__all__ = ["convert_plainly", "convert_to_float_tflite", "convert_to_tflite"]

_INPUT = "image"

# Keras' words in front of a layer's own error.
_CALLING = re.compile(r"Exception encountered when calling (\w+)\.call\(\)\. *")


def convert_to_tflite(
    inputs: Any,
    outputs: Mapping[str, Any],
    precision: str,
    images: Images | None = None,
    *,
    calibration: str = DEFAULT_CALIBRATION,
    per_channel: bool = True,
    keep_float: Collection[str] = (),
    speed: Speed | None = None,
) -> bytes:
    """Convert part of a Keras graph, with built-in operators only and a batch of one.

    Args:
        inputs: the graph's symbolic image input [B, H, W, 3].
        outputs: {name in the file: symbolic tensor}.
        precision: a name from `edgeheads.compression.quantize.schemes.SCHEMES`.
        images: gives real-valued inputs [1, H, W, 3], for the schemes that are calibrated: the
            same ones at every call, read one by one, so that memory does not grow with their
            number.
        calibration: how ranges are measured; a name from CALIBRATIONS.
        per_channel: give each channel of the weights a scale of its own; otherwise neighbouring
            layers are equalized with the images first, see `equalized_graph`.
        keep_float: names of tensors of the float32 file that the int8 one is made of, see
            `convert_to_float_tflite`, whose operations stay float32.
        speed: what an int8 file is made fast for; see `speed_for`. Outputs stay the same.

    Raises:
        EdgeheadsError: an unknown precision or method; calibration inputs that are missing, not
            finite, or all alike.
        RuntimeFailureError: the converter refuses the graph; the text has its reason.
    """
    scheme = get_scheme(precision)
    if not scheme.calibrated:
        if keep_float:
            raise EdgeheadsError(
                f"keep_float is for int8 activations, received precision {precision!r}"
            )
        return compact(_convert(inputs, outputs, scheme))
    if images is None:
        raise EdgeheadsError(f"{precision} needs calibration images, received none")
    float_model = convert_to_float_tflite(
        inputs, outputs, equalized_on=None if per_channel else images
    )
    if speed is not None and scheme.activations == "int8":
        float_model, unary = speed.changed(float_model)
        keep_float = {*keep_float, *unary}
    return compact(
        quantize_with_images(
            float_model,
            scheme,
            images,
            calibration=calibration,
            per_channel=per_channel,
            keep_float=keep_float,
        )
    )


def convert_to_float_tflite(
    inputs: Any, outputs: Mapping[str, Any], *, equalized_on: Images | None = None
) -> bytes:
    """Return the float32 file with the tensor names of the graph it was fused of.

    `quantize_float_model` and what goes with it know layers by these names.

    Args:
        inputs: see `convert_to_tflite`.
        outputs: likewise.
        equalized_on: calibration inputs, where the file's kernels are to get one scale each; see
            `equalized_graph`. None: scales for each channel, which need no equalization.
    """
    if equalized_on is not None:
        from edgeheads.compression.equalization import equalized_graph

        inputs, outputs = equalized_graph(inputs, outputs, equalized_on)
    return _convert(inputs, outputs, get_scheme("float32"))


def convert_plainly(inputs: Any, outputs: Mapping[str, Any], images: Images) -> bytes:
    """Return the int8 file that the converter makes by itself, to compare ours with."""
    return compact(_convert(inputs, outputs, get_scheme("int8"), images))


def _convert(
    inputs: Any, outputs: Mapping[str, Any], scheme: Scheme, images: Images | None = None
) -> bytes:
    tf, keras = _tensorflow()
    graph = keras.Model(inputs, dict(outputs))
    shape = (1, *graph.inputs[0].shape[1:])
    if None in shape:
        raise EdgeheadsError(
            f"a .tflite file needs a fixed input size, received {tuple(graph.inputs[0].shape)}"
        )
    with tempfile.TemporaryDirectory(prefix="edgeheads-") as folder, captured_native_log() as log:
        _save_as_constants(tf, graph, shape, folder)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        if scheme.weights != "float32":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if scheme.weights == "float16":
            converter.target_spec.supported_types = [tf.float16]
        if images is not None:
            converter.representative_dataset = lambda: ([image] for image in images())
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            converter.inference_input_type = converter.inference_output_type = tf.int8
        try:
            content: bytes = converter.convert()
        except Exception as error:
            raise RuntimeFailureError(
                f"the converter refuses this graph as {scheme.name}: {reason(error, log())}"
            ) from error
    return content


def _save_as_constants(tf: Any, graph: Any, shape: tuple[int, ...], folder: str) -> None:
    """Save the graph as a SavedModel with one signature, its weights as constants.

    Variables would be traced, written and read back one by one, which takes several times as long
    as the conversion itself; and those of a Keras 3 model that is saved without Keras' own export
    stay variables in the .tflite file, which then cannot be calibrated.

    Raises:
        RuntimeFailureError: a layer cannot be computed outside of Keras, or has a state that
            changes from image to image.
    """
    trainable = [tf.constant(variable) for variable in graph.trainable_variables]
    state = [tf.constant(variable) for variable in graph.non_trainable_variables]

    def serve(image: Any) -> dict[str, Any]:
        found: dict[str, Any] = graph.stateless_call(trainable, state, image, training=False)[0]
        return found

    module = tf.Module()
    module.serve = tf.function(
        serve,
        input_signature=[tf.TensorSpec(shape, tf.float32, name=_INPUT)],
        autograph=False,
    )
    try:
        signature = module.serve.get_concrete_function()
        foreign = sorted({variable.name for variable in signature.graph.variables})
        if not foreign:
            tf.saved_model.save(module, folder, signatures={"serving_default": signature})
    except Exception as error:  # each layer and each of TensorFlow's operations has its own
        raise RuntimeFailureError(
            f"the converter cannot follow {_complaint(error)}; build this part of the model of "
            "other operations"
        ) from error
    if foreign:
        raise RuntimeFailureError(
            "an operation of this graph has a state outside of the model's weights, "
            f"{', '.join(foreign)}, which no file holds, as random numbers have; leave it out"
        )


def _complaint(error: Exception) -> str:
    """Return which layer an error of tracing is about, and its first sentence."""
    text = reason(error, "")
    layer = _CALLING.match(text)
    first = text[layer.end() if layer else 0 :].split(" for '{{node")[0].split(". ")[0]
    return f"{layer[1] if layer else 'this graph'} ({first or type(error).__name__})"


def _tensorflow() -> tuple[Any, Any]:
    try:
        import keras
        import tensorflow as tf
    except ImportError:
        raise MissingDependencyError("tensorflow", "convert", "converting a model") from None
    return tf, keras
