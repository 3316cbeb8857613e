"""Shapes that kernels and delegates handle badly."""

from __future__ import annotations

from collections.abc import Iterator

import keras

from edgeheads.compression.graph import Call
from edgeheads.compression.lint.rule import Network, Rule, kind_of

__all__ = ["RULES"]

_BLOCK = 8
_RANK = 4
_TRANSPOSED = ("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose")


def _dynamic(network: Network) -> Iterator[tuple[str, str]]:
    for call in network.calls:
        # The batch is fixed to 1 by the converter: an axis that a transposition moves it to, or
        # that it is merged with, is not open.
        shapes = [tuple(one.shape) for one in call.outputs if None in one.shape[1:]]
        if shapes and not call.inputs:
            yield call.layer.name, f"has the open shape {shapes[0]}"


def _odd_channels(network: Network) -> Iterator[tuple[str, str]]:
    for call in network.calls:
        # What the task sets, such as the number of classes, is not for the network to choose.
        if not isinstance(call.layer, (keras.layers.Conv2D, keras.layers.SeparableConv2D)):
            continue
        _, *sides, channels = call.outputs[0].shape
        if set(sides) == {1}:
            continue  # what was pooled costs next to nothing
        leads_on = any(
            isinstance(one.layer, (keras.layers.Conv2D, keras.layers.DepthwiseConv2D))
            for one in _after(network, call)
        )
        if leads_on and channels is not None and channels % _BLOCK:
            up = -(-channels // _BLOCK) * _BLOCK
            yield call.layer.name, f"{channels} channels cost about as much as {up}"


def _after(network: Network, call: Call) -> list[Call]:
    readers = list(network.readers(call))
    for one in readers:
        if kind_of(one.layer) in ("BatchNormalization", "Activation", "ReLU", "ZeroPadding2D"):
            readers += [after for after in network.readers(one) if after not in readers]
    return readers


def _transposed(network: Network) -> Iterator[tuple[str, str]]:
    for call in network.calls:
        if kind_of(call.layer) == "ConvTranspose":
            yield call.layer.name, f"an operation with the stride {call.layer.strides}"
        elif kind_of(call.layer) in _TRANSPOSED:
            kernel, strides = call.layer.kernel_size, call.layer.strides
            overlap = any(k % s for k, s in zip(kernel, strides, strict=True))
            uneven = "; the kernel is no multiple of the stride, which leaves a pattern"
            yield (
                call.layer.name,
                f"kernel {kernel}, stride {strides}{uneven if overlap else ''}",
            )


def _resize(network: Network) -> Iterator[tuple[str, str]]:
    for call in network.calls:
        if kind_of(call.layer) not in ("Resizing", "Resize"):
            continue
        before, after = tuple(call.inputs[0].shape[1:3]), tuple(call.outputs[0].shape[1:3])
        if None in (*before, *after):
            continue
        if any(new % old for old, new in zip(before, after, strict=True)):
            yield call.layer.name, f"from {before[0]}x{before[1]} to {after[0]}x{after[1]}"


def _adaptive(network: Network) -> Iterator[tuple[str, str]]:
    for call in network.calls:
        if not kind_of(call.layer).startswith("Adaptive"):
            continue
        is_first = call.layer.data_format == "channels_first"
        axes = slice(2, None) if is_first else slice(1, -1)
        before, after = tuple(call.inputs[0].shape[axes]), tuple(call.outputs[0].shape[axes])
        if None in before:
            continue
        whole = all(old % new == 0 for old, new in zip(before, after, strict=True))
        pool = f"; windows of {[old // new for old, new in zip(before, after, strict=True)]} do it"
        yield call.layer.name, f"from {_sides(before)} to {_sides(after)}{pool if whole else ''}"


def _sides(sizes: tuple[int, ...]) -> str:
    return "x".join(str(one) for one in sizes)


def _five_dimensions(network: Network) -> Iterator[tuple[str, str]]:
    for call in network.calls:
        shapes = [tuple(one.shape) for one in (*call.inputs, *call.outputs)]
        widest = max(shapes, key=len, default=())
        if call.inputs and len(widest) > _RANK:
            yield call.layer.name, f"a tensor of the shape {widest}, with the batch"


RULES = (
    Rule(
        "high-rank",
        "Tensors of more than four dimensions",
        "warning",
        "convolution over three axes exists in float only, and accelerators' kernels are written "
        "for [batch, height, width, channels]",
        "frames or groups as channels: Reshape to four dimensions, and 2-D layers",
        _five_dimensions,
        is_int8=False,
    ),
    Rule(
        "dynamic-shape",
        "Dynamic shape",
        "error",
        "delegates and accelerators plan their memory before the first image: they leave a graph "
        "of open sizes to the interpreter, or refuse it",
        "a fixed size: keras.Input((height, width, 3))",
        _dynamic,
        is_int8=False,
    ),
    Rule(
        "odd-channels",
        "Channels that are no multiple of 8",
        "note",
        "int8 kernels compute 8 or 16 channels at once: the rest of the last block is computed "
        "and thrown away",
        "the next multiple of 8, or the one below",
        _odd_channels,
    ),
    Rule(
        "transposed-convolution",
        "Transposed convolution",
        "warning",
        "it is slower than a resize and a convolution of the same reach, few accelerators run it "
        "in int8, and the converter leaves its output shape to be computed",
        "UpSampling2D (bilinear or nearest), then a separable convolution",
        _transposed,
        is_int8=False,
    ),
    Rule(
        "resize-factor",
        "Resize by a factor that is no whole number",
        "warning",
        "accelerators run whole factors only, and the weights of the other factors are rounded "
        "differently from kernel to kernel",
        "an input size that the strides divide, and UpSampling2D by 2 or 4",
        _resize,
        is_int8=False,
    ),
    Rule(
        "adaptive-pooling",
        "Adaptive pooling",
        "warning",
        "Keras pools twice with a stride of 1 along each axis, and gathers what it needs: int8 "
        "takes many times as long as for one pooling, and accelerators have no GATHER",
        "AveragePooling2D or MaxPooling2D of an input size that their windows divide",
        _adaptive,
        is_int8=False,
    ),
)
