"""Layers that round as an int8 file does, while everything around them stays float and trains."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from edgeheads.errors import EdgeheadsError

__all__ = [
    "OBSERVERS",
    "TIES",
    "FakeQuantize",
    "Integers",
    "Term",
    "fake_quantize",
    "round_through",
]

OBSERVERS = ("learned", "moving_average", "fixed")

# To the even one; to the larger one; away from what int8 stores as 0.
TIES = ("even", "up", "away")

_STEPS = 255
_LOWEST = -128
_MOMENTUM = 0.99
# A half, and what sums in float32 may miss of one.
_HALF = 0.5 + 1e-3
# In steps: what float32 may miss of a sum that no activation has clipped.
_UNCLIPPED = 1e-2
# Of the factors by which the file's additions multiply.
_FACTOR_BITS = 20

# Whole numbers, and what one of them is worth: the product is real.
Term = tuple[Any, Any]


def fake_quantize(
    x: Any, low: Any, high: Any, ties: str = "even", terms: Sequence[Term] = ()
) -> Any:
    """Return `x` rounded to the 256 values between `low` and `high` that int8 tells apart.

    The zero point is an integer, so that zero is one of the values. The gradient passes through
    the rounding unchanged (the straight-through estimator of Bengio et al. 2013, "Estimating or
    Propagating Gradients Through Stochastic Neurons"), is zero for what is clipped, and reaches
    `low` and `high` as in Esser et al. 2020, "Learned Step Size Quantization".

    Args:
        x: any shape.
        low: at most 0, a scalar.
        high: at least 0, a scalar, above `low`.
        ties: where a value halfway between two goes; a name from TIES.
        terms: one or two, whose sum `x` is where no activation clipped it. The file has integers
            there and rounds as `_rescaled` does; its last digit decides where a value goes that
            lies between two.
    """
    scale = (high - low) / _STEPS
    zero = ops.stop_gradient(ops.clip(ops.round(-low / scale), 0, _STEPS))
    exact = x / scale
    steps = ops.clip(exact, -zero, _STEPS - zero)
    if not terms:
        return round_through(steps, ties, _LOWEST + zero) * scale
    sums = sum(ops.cast(whole, x.dtype) * ops.cast(size, x.dtype) for whole, size in terms)
    clipped = ops.abs(sums / scale - exact) > _UNCLIPPED
    rounded = ops.where(clipped, ops.round(steps), ops.cast(_rescaled(terms, scale), x.dtype))
    rounded = ops.clip(rounded, -zero, _STEPS - zero)
    return (steps + ops.stop_gradient(rounded - steps)) * scale


def _rescaled(terms: Sequence[Term], scale: Any) -> Any:
    """Return a sum of terms in whole steps of `scale`, computed as XNNPACK does.

    One term is multiplied by one factor in float32. Two are multiplied by integers of 20 bits, of
    which the larger has all, and their sum is shifted back; a half goes up.
    """
    factors = [ops.cast(size / scale, "float32") for _, size in terms]
    whole = [ops.cast(ops.round(one), "float32") for one, _ in terms]
    if len(terms) == 1:
        return ops.round(whole[0] * factors[0])
    power = ops.power(2.0, _FACTOR_BITS - _exponent(ops.maximum(*factors)))
    products = [
        ops.cast(one, "int32") * ops.cast(ops.round(factor * power), "int32")
        for one, factor in zip(whole, factors, strict=True)
    ]
    return ops.floor_divide(sum(products) + ops.cast(power / 2, "int32"), ops.cast(power, "int32"))


def _exponent(x: Any) -> Any:
    """Return the largest integer n with 2 ** n <= x."""
    guess = ops.floor(ops.log2(x))
    low = ops.cast(ops.power(2.0, guess) > x, x.dtype)
    high = ops.cast(ops.power(2.0, guess + 1) <= x, x.dtype)
    return guess - low + high


def round_through(x: Any, ties: str = "even", zero: Any = 0.0) -> Any:
    """Return `x` at whole numbers; `zero` is what int8 stores for 0."""
    if ties == "even":
        rounded = ops.round(x)
    elif ties == "up":
        rounded = ops.floor(x + _HALF)
    else:
        stored = x + zero
        rounded = ops.sign(stored) * ops.floor(ops.abs(stored) + _HALF) - zero
    return x + ops.stop_gradient(rounded - x)


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

    def reset(self) -> None:
        """Go back to the range that the layer was made with."""
        learned = self.observer == "learned"
        self.low_end.assign(0.0 if learned else self.low)
        self.high_end.assign(0.0 if learned else self.high)

    def range(self) -> tuple[Any, Any]:
        """Return the ends of the range as they are now."""
        if self.observer != "learned":
            return ops.convert_to_tensor(self.low_end), ops.convert_to_tensor(self.high_end)
        return self.low * ops.exp(self.low_end), self.high * ops.exp(self.high_end)

    def call(
        self,
        x: Any,
        terms: Sequence[Term] = (),
        training: bool | None = None,
        ties: str = "even",
    ) -> tuple[Any, Any]:
        """Return `x` rounded, and the step; in training, a moving average sees it first.

        Args:
            x: any shape.
            terms: see `fake_quantize`. The last digit, which they decide, takes half of a step's
                time and teaches nothing: training does without.
            training: whether `x` is part of a training batch.
            ties: a name from TIES.

        Returns:
            Of the shape of `x`; and a scalar, what two neighbouring values of int8 differ by.
        """
        if training and self.observer == "moving_average":
            for end, seen in ((self.low_end, ops.min(x)), (self.high_end, ops.max(x))):
                # An end that is zero is one, as behind a ReLU.
                bound = ops.minimum if end is self.low_end else ops.maximum
                seen = bound(ops.cast(ops.stop_gradient(seen), "float32"), 0.0)
                end.assign(end * _MOMENTUM + seen * (1 - _MOMENTUM))
        terms = () if training else terms
        low, high = self.range()
        if self.observer == "learned":
            # Every value pulls at the ends: keep their pull that of one weight (LSQ, section 2.2).
            share = 1 / (_STEPS * ops.cast(ops.size(x), "float32")) ** 0.5
            low, high = (_pulled(end, share) for end in (low, high))
        low, high = ops.cast(low, x.dtype), ops.cast(high, x.dtype)
        return fake_quantize(x, low, high, ties, terms), ops.stop_gradient(high - low) / _STEPS

    def compute_output_spec(self, x: Any, *args: Any, **options: Any) -> Any:
        """Return the shape of the input, and a scalar's."""
        return keras.KerasTensor(x.shape, x.dtype), keras.KerasTensor((), x.dtype)

    def get_config(self) -> dict[str, Any]:
        """Return what the constructor takes."""
        own = {"low": self.low, "high": self.high, "observer": self.observer}
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable(package="edgeheads")
class Integers(keras.layers.Layer):
    """Says what an int8 file adds up in an operation without weights, of rounded tensors.

    Args:
        operation: "add", "multiply", or "mean", over height and width.
        keepdims: whether a mean is a map of one pixel.
    """

    def __init__(self, operation: str, keepdims: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self.operation, self.keepdims = operation, keepdims

    def call(self, tensors: Sequence[Any], steps: Sequence[Any]) -> list[Term]:
        """Return the terms of the operation's result; see `fake_quantize`.

        Args:
            tensors: two, or, of a mean, one [B, H, W, C].
            steps: scalars, what they are rounded to.
        """
        whole = [ops.round(x / step) for x, step in zip(tensors, steps, strict=True)]
        if self.operation == "add":
            return list(zip(whole, steps, strict=True))
        if self.operation == "multiply":
            return [(whole[0] * whole[1], steps[0] * steps[1])]
        size = whole[0].shape[1] * whole[0].shape[2]
        return [(ops.sum(whole[0], axis=(1, 2), keepdims=self.keepdims), steps[0] / size)]

    def get_config(self) -> dict[str, Any]:
        """Return what the constructor takes."""
        own = {"operation": self.operation, "keepdims": self.keepdims}
        return {**super().get_config(), **own}


def _pulled(end: Any, share: Any) -> Any:
    """Return `end`, to the last digit, with that share of its gradient."""
    part = end * share
    return ops.stop_gradient(end) + (part - ops.stop_gradient(part))
