"""From a Keras model to the bytes of a .tflite file."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from edgeheads.errors import EdgeheadsError, MissingDependencyError, RuntimeFailureError
from edgeheads.export.compact import compact
from edgeheads.nativelog import captured_native_log
from edgeheads.tasks.base import Array

__all__ = ["convert_to_tflite"]

_INPUT = "image"


def convert_to_tflite(
    inputs: Any,
    outputs: Mapping[str, Any],
    precision: str,
    calibration: Callable[[], Iterable[Array]] | None = None,
) -> bytes:
    """Convert part of a Keras graph, with built-in operators only and a batch of one.

    Args:
        inputs: the graph's symbolic image input [B, H, W, 3].
        outputs: {name in the file: symbolic tensor}.
        precision: "float32", "float16" (weights), or "int8": weights, activations, inputs and
            outputs, weights per channel.
        calibration: gives real-valued inputs [1, H, W, 3], for "int8"; called once, read one by
            one, so that memory does not grow with their number.

    Raises:
        EdgeheadsError: calibration inputs that are missing, not finite, or all alike.
        RuntimeFailureError: the converter refuses the graph; the text has its reason.
    """
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
        feed = _configure(tf, converter, precision, calibration, shape)
        try:
            content: bytes = converter.convert()
        except Exception as error:
            if feed is not None and feed.error is not None:
                raise feed.error from None
            raise RuntimeFailureError(
                f"the converter refuses this graph as {precision}: {_reason(error, log())}"
            ) from error
    return compact(content)


def _save_as_constants(tf: Any, graph: Any, shape: tuple[int, ...], folder: str) -> None:
    """Save the graph as a SavedModel with one signature, its weights as constants.

    Variables would be traced, written and read back one by one, which takes several times as long
    as the conversion itself; and those of a Keras 3 model that is saved without Keras' own export
    stay variables in the .tflite file, which then cannot be calibrated.
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
    signature = module.serve.get_concrete_function()
    tf.saved_model.save(module, folder, signatures={"serving_default": signature})


def _configure(
    tf: Any,
    converter: Any,
    precision: str,
    calibration: Callable[[], Iterable[Array]] | None,
    shape: tuple[int, ...],
) -> _Feed | None:
    if precision == "float32":
        return None
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if precision == "float16":
        converter.target_spec.supported_types = [tf.float16]
        return None
    if precision != "int8":
        raise EdgeheadsError(f"precision must be float32, float16 or int8, received {precision!r}")
    if calibration is None:
        raise EdgeheadsError("int8 needs calibration images, received none")
    feed = _Feed(calibration, shape)
    converter.representative_dataset = feed
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = tf.int8
    converter.inference_output_type = tf.int8
    return feed


class _Feed:
    """The representative dataset, checked as it is read.

    The converter replaces an exception of ours by one of its own; `error` keeps ours.
    """

    def __init__(self, calibration: Callable[[], Iterable[Array]], shape: tuple[int, ...]) -> None:
        self._calibration = calibration
        self._shape = shape
        self.error: EdgeheadsError | None = None

    def __call__(self) -> Iterator[list[Array]]:
        low, high, count = np.inf, -np.inf, 0
        for array in self._calibration():
            if array.shape != self._shape or not np.isfinite(array).all():
                self._fail(
                    f"calibration image {count} must be finite and of shape {self._shape}, "
                    f"received shape {array.shape}"
                    + ("" if array.shape != self._shape else " with NaN or infinite values")
                )
            low, high = min(low, float(array.min())), max(high, float(array.max()))
            count += 1
            yield [array.astype(np.float32)]
        if low >= high:
            self._fail(
                f"the {count} calibration images are all one colour, so no range can be measured; "
                "calibrate with images like those the model will see"
            )

    def _fail(self, text: str) -> None:
        self.error = EdgeheadsError(text)
        raise self.error


def _reason(error: Exception, log: str) -> str:
    lines = [line.strip() for line in f"{error}\n{log}".splitlines() if "error:" in line.lower()]
    text = lines[0] if lines else str(error)
    return " ".join(text.split())[:400] or type(error).__name__


def _tensorflow() -> tuple[Any, Any]:
    try:
        import keras
        import tensorflow as tf
    except ImportError:
        raise MissingDependencyError("tensorflow", "convert", "converting a model") from None
    return tf, keras
