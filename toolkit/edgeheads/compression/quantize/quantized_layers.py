"""Layers with weights that compute as an int8 file does, in whole numbers, and train."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from edgeheads.compression.quantize.fake_quantize import round_through

__all__ = ["QUANTIZED", "QuantizedDense", "kernel_steps"]

_KERNEL_STEPS = 127
_SMALLEST = 1e-9


def kernel_steps(kernel: Any, axes: tuple[int, ...] | None) -> Any:
    """Return what neighbouring values of a kernel differ by in symmetric int8.

    It is the largest magnitude over 127, as the converter has it.

    Args:
        kernel: the weights.
        axes: over which the weights of one channel lie; None gives the kernel one step.

    Returns:
        Of the kernel's rank.
    """
    largest = ops.max(ops.abs(kernel), axis=axes, keepdims=True)
    return ops.stop_gradient(ops.maximum(largest / _KERNEL_STEPS, _SMALLEST))


class _Quantized:
    """What the layers below share: they compute with weights as the int8 file stores them.

    Args:
        per_channel: give each output channel of the kernel a step of its own.
    """

    kernel: Any
    bias: Any
    use_bias: bool
    activation: Any
    # Over which the weights of one output channel lie.
    _axes: tuple[int, ...]

    def __init__(self, *args: Any, per_channel: bool = True, **options: Any) -> None:
        super().__init__(*args, **options)
        self.per_channel = per_channel

    def call(self, inputs: Any, step: Any = None) -> Any:
        """Compute with the rounded weights.

        Args:
            inputs: what the stock layer takes.
            step: scalar, of the inputs; None, where they are not rounded, leaves the bias as it is.

        Returns:
            Of the shape of the stock layer's; with `step` also the term that it is, before an
            activation: integers of this shape, and [C].
        """
        kernel = ops.convert_to_tensor(self.kernel)
        steps = kernel_steps(kernel, self._axes if self.per_channel else None)
        # The sums of the file are of integers: so are these, which float32 adds without an error
        # while they stay below 2 ** 24. Errors would flip values that lie between two steps, and
        # layers behind make more of each.
        whole = inputs if step is None else round_through(inputs / ops.cast(step, inputs.dtype))
        x = self._product(whole, ops.cast(round_through(kernel / steps), inputs.dtype))
        size = ops.reshape(steps, (-1,)) * (1.0 if step is None else ops.cast(step, steps.dtype))
        if self.use_bias:
            bias = ops.convert_to_tensor(self.bias) / size
            x = x + ops.cast(bias if step is None else round_through(bias), x.dtype)
        size = ops.broadcast_to(ops.cast(size, x.dtype), x.shape[-1:])
        result = self.activation(x * size)
        return result if step is None else (result, x, size)

    def compute_output_spec(self, inputs: Any, step: Any = None) -> Any:
        """Return what `call` does."""
        result = super().compute_output_spec(inputs)  # type: ignore[misc]
        if step is None:
            return result
        return (
            result,
            keras.KerasTensor(result.shape, result.dtype),
            keras.KerasTensor(result.shape[-1:], result.dtype),
        )

    def get_config(self) -> dict[str, Any]:
        """Return what the constructor takes."""
        config: dict[str, Any] = super().get_config()  # type: ignore[misc]
        return {**config, "per_channel": self.per_channel}

    def _product(self, inputs: Any, kernel: Any) -> Any:
        raise NotImplementedError


@keras.saving.register_keras_serializable(package="edgeheads")
class QuantizedConv2D(_Quantized, keras.layers.Conv2D):
    """A convolution that computes as int8 does."""

    _axes = (0, 1, 2)

    def _product(self, inputs: Any, kernel: Any) -> Any:
        return self.convolution_op(inputs, kernel)


@keras.saving.register_keras_serializable(package="edgeheads")
class QuantizedDepthwiseConv2D(_Quantized, keras.layers.DepthwiseConv2D):
    """A depthwise convolution that computes as int8 does."""

    _axes = (0, 1)

    def _product(self, inputs: Any, kernel: Any) -> Any:
        return ops.depthwise_conv(
            inputs,
            kernel,
            strides=self.strides,
            padding=self.padding,
            dilation_rate=self.dilation_rate,
            data_format=self.data_format,
        )


@keras.saving.register_keras_serializable(package="edgeheads")
class QuantizedDense(_Quantized, keras.layers.Dense):
    """A dense layer that computes as int8 does."""

    _axes = (0,)

    def _product(self, inputs: Any, kernel: Any) -> Any:
        return ops.matmul(inputs, kernel)


@keras.saving.register_keras_serializable(package="edgeheads")
class QuantizedConv2DTranspose(_Quantized, keras.layers.Conv2DTranspose):
    """A transposed convolution that computes as int8 does."""

    _axes = (0, 1, 3)

    def _product(self, inputs: Any, kernel: Any) -> Any:
        return ops.conv_transpose(
            inputs,
            kernel,
            strides=list(self.strides),
            padding=self.padding,
            output_padding=self.output_padding,
            dilation_rate=self.dilation_rate,
            data_format=self.data_format,
        )


QUANTIZED: dict[type[keras.layers.Layer], type[keras.layers.Layer]] = {
    keras.layers.Conv2D: QuantizedConv2D,
    keras.layers.DepthwiseConv2D: QuantizedDepthwiseConv2D,
    keras.layers.Conv2DTranspose: QuantizedConv2DTranspose,
    keras.layers.Dense: QuantizedDense,
}
