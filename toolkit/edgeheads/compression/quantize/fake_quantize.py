"""Layers that round as an int8 file does, while everything around them stays float and trains."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from edgeheads.errors import EdgeheadsError

__all__ = ["OBSERVERS", "QUANTIZED", "FakeQuantize", "fake_quantize", "fake_quantize_kernel"]

OBSERVERS = ("learned", "moving_average", "fixed")

_STEPS = 255
_KERNEL_STEPS = 127
_MOMENTUM = 0.99
_SMALLEST = 1e-9


def fake_quantize(x: Any, low: Any, high: Any) -> Any:
    """Return `x` rounded to the 256 values between `low` and `high` that int8 tells apart.

    The zero point is an integer, so that zero is one of the values. The gradient passes through
    the rounding unchanged (the straight-through estimator of Bengio et al. 2013, "Estimating or
    Propagating Gradients Through Stochastic Neurons"), is zero for what is clipped, and reaches
    `low` and `high` as in Esser et al. 2020, "Learned Step Size Quantization".

    Args:
        x: any shape.
        low: at most 0, a scalar.
        high: at least 0, a scalar, above `low`.
    """
    scale = (high - low) / _STEPS
    zero = ops.stop_gradient(ops.clip(ops.round(-low / scale), 0, _STEPS))
    steps = ops.clip(x / scale, -zero, _STEPS - zero)
    return _round(steps) * scale


def fake_quantize_kernel(kernel: Any, axes: tuple[int, ...]) -> Any:
    """Return a kernel rounded to the 255 values of symmetric int8, a scale for each channel.

    The scale is the largest magnitude over 127, as the converter has it; zeros stay zero.

    Args:
        kernel: the weights.
        axes: over which the weights of one channel lie.
    """
    largest = ops.max(ops.abs(kernel), axis=axes, keepdims=True)
    scale = ops.stop_gradient(ops.maximum(largest / _KERNEL_STEPS, _SMALLEST))
    return _round(kernel / scale) * scale


def _round(x: Any) -> Any:
    return x + ops.stop_gradient(ops.round(x) - x)


@keras.saving.register_keras_serializable(package="edgeheads")
class FakeQuantize(keras.layers.Layer):
    """Rounds an activation to int8, asymmetric, one scale for the tensor.

    Args:
        low: where the range starts, at most 0: of calibration.
        high: where it ends, at least 0.
        observer: "learned" trains both ends by gradient, as factors in the log domain so that one
            learning rate suits every tensor (Jain et al. 2020, "Trained Quantization Thresholds";
            clipping as in Choi et al. 2018, "PACT"); "moving_average" follows the extremes of the
            training batches (Jacob et al. 2018, momentum 0.99); "fixed" keeps the range.
    """

    def __init__(self, low: float, high: float, observer: str = "learned", **options: Any) -> None:
        super().__init__(**options)
        if observer not in OBSERVERS:
            raise EdgeheadsError(
                f"observer must be one of {', '.join(OBSERVERS)}, received {observer!r}"
            )
        if not low <= 0 <= high or low == high:
            raise EdgeheadsError(
                f"a range must hold zero and more than that, received {low} to {high}"
            )
        self.low, self.high, self.observer = float(low), float(high), observer

    def build(self, shape: Any) -> None:
        """Make the two ends of the range: factors where they are learned, else values."""
        learned = self.observer == "learned"
        for name, value in (("low", self.low), ("high", self.high)):
            # Scalars whose names the optimizer leaves out of weight decay.
            variable = self.add_weight(
                name=f"{name}_bias",
                shape=(),
                initializer=keras.initializers.Constant(0.0 if learned else value),
                trainable=learned,
                dtype="float32",
            )
            setattr(self, f"{name}_end", variable)
        self.built = True

    def range(self) -> tuple[Any, Any]:
        """Return the ends of the range as they are now."""
        if self.observer != "learned":
            return ops.convert_to_tensor(self.low_end), ops.convert_to_tensor(self.high_end)
        return self.low * ops.exp(self.low_end), self.high * ops.exp(self.high_end)

    def call(self, x: Any, training: bool | None = None) -> Any:
        """Return `x` rounded; in training, a moving average takes it into account first."""
        if training and self.observer == "moving_average":
            for end, seen in ((self.low_end, ops.min(x)), (self.high_end, ops.max(x))):
                # An end that is zero is one, as behind a ReLU.
                bound = ops.minimum if end is self.low_end else ops.maximum
                seen = bound(ops.cast(ops.stop_gradient(seen), "float32"), 0.0)
                end.assign(end * _MOMENTUM + seen * (1 - _MOMENTUM))
        low, high = self.range()
        if self.observer == "learned":
            # Every value pulls at the ends: keep their pull that of one weight (LSQ, section 2.2).
            share = 1 / (_STEPS * ops.cast(ops.size(x), "float32")) ** 0.5
            low, high = (end * share + ops.stop_gradient(end * (1 - share)) for end in (low, high))
        return fake_quantize(x, ops.cast(low, x.dtype), ops.cast(high, x.dtype))

    def compute_output_shape(self, shape: Any) -> Any:
        """Return the shape of the input."""
        return shape

    def get_config(self) -> dict[str, Any]:
        """Return what the constructor takes."""
        own = {"low": self.low, "high": self.high, "observer": self.observer}
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable(package="edgeheads")
class QuantizedConv2D(keras.layers.Conv2D):
    """A convolution that computes with its kernel as int8 keeps it."""

    def convolution_op(self, inputs: Any, kernel: Any) -> Any:
        """Convolve with the rounded kernel."""
        return super().convolution_op(inputs, fake_quantize_kernel(kernel, (0, 1, 2)))


@keras.saving.register_keras_serializable(package="edgeheads")
class QuantizedDepthwiseConv2D(keras.layers.DepthwiseConv2D):
    """A depthwise convolution that computes with its kernel as int8 keeps it."""

    def call(self, inputs: Any) -> Any:
        """Convolve with the rounded kernel."""
        kernel = fake_quantize_kernel(ops.convert_to_tensor(self.kernel), (0, 1))
        x = ops.depthwise_conv(
            inputs,
            ops.cast(kernel, inputs.dtype),
            strides=self.strides,
            padding=self.padding,
            dilation_rate=self.dilation_rate,
            data_format=self.data_format,
        )
        return self.activation(x + self.bias if self.use_bias else x)


@keras.saving.register_keras_serializable(package="edgeheads")
class QuantizedDense(keras.layers.Dense):
    """A dense layer that computes with its kernel as int8 keeps it."""

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Multiply by the rounded kernel."""
        kernel = fake_quantize_kernel(ops.convert_to_tensor(self.kernel), (0,))
        x = ops.matmul(inputs, ops.cast(kernel, inputs.dtype))
        return self.activation(x + self.bias if self.use_bias else x)


@keras.saving.register_keras_serializable(package="edgeheads")
class QuantizedConv2DTranspose(keras.layers.Conv2DTranspose):
    """A transposed convolution that computes with its kernel as int8 keeps it."""

    def call(self, inputs: Any) -> Any:
        """Convolve with the rounded kernel."""
        kernel = fake_quantize_kernel(ops.convert_to_tensor(self.kernel), (0, 1, 3))
        x = ops.conv_transpose(
            inputs,
            ops.cast(kernel, inputs.dtype),
            strides=list(self.strides),
            padding=self.padding,
            output_padding=self.output_padding,
            dilation_rate=self.dilation_rate,
            data_format=self.data_format,
        )
        return self.activation(x + self.bias if self.use_bias else x)


QUANTIZED: dict[type[keras.layers.Layer], type[keras.layers.Layer]] = {
    keras.layers.Conv2D: QuantizedConv2D,
    keras.layers.DepthwiseConv2D: QuantizedDepthwiseConv2D,
    keras.layers.Conv2DTranspose: QuantizedConv2DTranspose,
    keras.layers.Dense: QuantizedDense,
}
