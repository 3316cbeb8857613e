"""From a float32 .tflite file and measured ranges to one that computes in integers."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from edgeheads.compression.quantize.bias_correction import correct_biases
from edgeheads.compression.quantize.calibration import (
    DEFAULT_CALIBRATION,
    Images,
    Range,
    checked_images,
    measure_ranges,
)
from edgeheads.compression.quantize.schemes import Scheme
from edgeheads.errors import EdgeheadsError, MissingDependencyError, RuntimeFailureError
from edgeheads.export.flatgraph import FlatGraph
from edgeheads.nativelog import captured_native_log
from edgeheads.tasks.base import Array

__all__ = ["quantize_float_model", "quantize_with_images", "reason"]

_CONVOLUTIONS = {"CONV_2D", "CONV_3D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV"}

# Operations that run graphs of their own.
_BRANCHING = {"IF", "WHILE"}


def quantize_with_images(
    float_model: bytes,
    scheme: Scheme,
    images: Images,
    *,
    calibration: str = DEFAULT_CALIBRATION,
    per_channel: bool = True,
    keep_float: Collection[str] = (),
) -> bytes:
    """Measure ranges, quantize, and correct the biases.

    Args:
        float_model: a float32 .tflite file.
        scheme: one with integer activations.
        images: calibration inputs; see `measure_ranges`.
        calibration: how ranges are measured; a name from CALIBRATIONS. With 16 bits the extremes
            are kept whatever it says: there are steps enough.
        per_channel: give each channel of the weights a scale of its own.
        keep_float: names of tensors of `float_model`; the operations that compute them stay
            float32. Of 8-bit schemes only.

    Raises:
        EdgeheadsError: images that cannot be used, an unknown method or name, or one scale for
            all channels with 16-bit activations and depthwise convolutions.
        RuntimeFailureError: the quantizer refuses the graph.
    """
    if scheme.activations == "int16":
        if keep_float:
            raise EdgeheadsError(
                f"keep_float is for int8 activations, received scheme {scheme.name!r}"
            )
        quantized = _to_int16(float_model, scheme, images, per_channel)
    else:
        ranges = measure_ranges(float_model, images, calibration)
        quantized = quantize_float_model(
            float_model, ranges, scheme, per_channel=per_channel, keep_float=keep_float
        )
    return correct_biases(float_model, quantized, images)


def quantize_float_model(
    float_model: bytes,
    ranges: Mapping[int, Range],
    scheme: Scheme,
    *,
    per_channel: bool = True,
    keep_float: Collection[str] = (),
) -> bytes:
    """Quantize a float32 .tflite file with ranges that were measured before.

    Tensors keep the names that they have in the float file. Takes tenths of a second: one
    measurement serves many attempts with other layers in `keep_float`.

    Args:
        float_model: the file.
        ranges: of `measure_ranges`.
        scheme: one with int8 activations.
        per_channel: see `quantize_with_images`.
        keep_float: likewise.

    Raises:
        EdgeheadsError: a name in `keep_float` that no tensor has.
        RuntimeFailureError: the quantizer refuses the graph.
    """
    graph = FlatGraph(float_model)
    unknown = sorted(set(keep_float) - graph.numbers().keys())
    if unknown:
        raise EdgeheadsError(f"keep_float must name tensors of the float file, received {unknown}")
    _require_constant_kernels(graph, scheme, keep_float)
    for tensor, one in ranges.items():
        graph.set_range(tensor, one.low, one.high)
    tf = _tensorflow()
    # The converter's own step behind its calibration, and the only way to give it ranges that
    # were measured otherwise; the documented one measures them itself.
    from tensorflow.lite.python.convert import mlir_quantize

    io = tf.dtypes.as_dtype(scheme.io)
    with _refusals_of(scheme):
        content: bytes = mlir_quantize(
            graph.to_bytes(),
            disable_per_channel=not per_channel,
            # Fully connected layers too: a classifier's rows differ as much as any kernel's.
            disable_per_channel_for_dense_layers=not per_channel,
            input_data_type=io,
            output_data_type=io,
            denylisted_nodes=set(keep_float) or None,
        )
    return content


def _to_int16(float_model: bytes, scheme: Scheme, images: Images, per_channel: bool) -> bytes:
    """Quantize by the extremes: 65536 steps need no better choice, and zero lies in the middle."""
    tf = _tensorflow()
    from tensorflow.lite.python.optimize.calibrator import Calibrator

    graph = FlatGraph(float_model)
    if not per_channel and any(graph.kind(one) == "DEPTHWISE_CONV_2D" for one in graph.operations):
        raise EdgeheadsError(
            f"{scheme.name} cannot give depthwise convolutions one scale for all channels, which "
            "the quantizer does not write; choose int8, or per-channel weights"
        )
    _require_constant_kernels(graph, scheme)
    if any(graph.kind(one) in _BRANCHING for one in graph.operations):
        # It would crash, and the whole process with it.
        raise RuntimeFailureError(
            f"the quantizer has no {scheme.name} of loops and branches, and this graph has some, "
            "as recurrent layers have; give these layers unroll=True, or choose int8"
        )
    feed = _Feed(images, graph.shape(graph.inputs[0]))
    io = tf.dtypes.as_dtype(scheme.io)
    with _refusals_of(scheme, feed):
        content: bytes = Calibrator(float_model).calibrate_and_quantize(
            feed,
            io,
            io,
            allow_float=False,
            activations_type=tf.int16,
            bias_type=tf.int64,
            disable_per_channel=not per_channel,
            disable_per_channel_quantization_for_dense_layers=not per_channel,
        )
    return content


def _require_constant_kernels(
    graph: FlatGraph, scheme: Scheme, keep_float: Collection[str] = ()
) -> None:
    """Refuse kernels that are computed: as activations they get a zero point.

    The runtime's convolutions know of none in a kernel. Some refuse the file, and others would
    compute something else.
    """
    depending = graph.depending()
    for operation in graph.operations:
        name = graph.name(int(operation.outputs[0]))
        computed = graph.kind(operation) in _CONVOLUTIONS and int(operation.inputs[1]) in depending
        if computed and name not in keep_float:
            raise RuntimeFailureError(
                f"{scheme.name} needs convolutions whose kernels are constants, and that of "
                f"{graph.kind(operation)} {name!r} is computed from the image; choose dynamic or "
                "float16"
            )


class _Feed:
    """The representative images; `error` keeps ours, which the converter replaces by its own."""

    def __init__(self, images: Images, shape: tuple[int, ...]) -> None:
        self._images = images
        self._shape = shape
        self.error: EdgeheadsError | None = None

    def __call__(self) -> Iterator[list[Array]]:
        try:
            for image in checked_images(self._images(), self._shape):
                yield [image]
        except EdgeheadsError as error:
            self.error = error
            raise


@contextmanager
def _refusals_of(scheme: Scheme, feed: _Feed | None = None) -> Iterator[None]:
    with captured_native_log() as log:
        try:
            yield
        except Exception as error:
            if feed is not None and feed.error is not None:
                raise feed.error from None
            raise RuntimeFailureError(
                f"the quantizer refuses this graph as {scheme.name}: {reason(error, log())}"
            ) from error


def reason(error: Exception, log: str) -> str:
    """Return what a converter complains about: its first line with "error:", or its exception."""
    lines = [line.strip() for line in f"{error}\n{log}".splitlines() if "error:" in line.lower()]
    # Keras adds the arguments of the call, and colours.
    own = re.sub(r"\x1b\[\d*m", "", str(error).partition("Arguments received by")[0])
    text = lines[0] if lines else own
    return " ".join(text.split())[:400].rstrip(" .;") or type(error).__name__


def _tensorflow() -> Any:
    try:
        import tensorflow as tf
    except ImportError:
        raise MissingDependencyError("tensorflow", "convert", "quantizing a model") from None
    return tf
