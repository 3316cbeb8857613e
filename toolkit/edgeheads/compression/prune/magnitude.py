"""Magnitude pruning: weights become zero while a model trains, in a pattern, on a schedule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from edgeheads.compression.prune.pattern import Pattern, parse_pattern, require_fitting
from edgeheads.errors import EdgeheadsError
from edgeheads.tasks.base import Array
from edgeheads.training.trainer import synchronize

__all__ = [
    "KeepZeros",
    "MagnitudePruning",
    "PolynomialSchedule",
    "keep_mask",
    "prunable_kernels",
    "strip",
]

Mask = NDArray[np.bool_]

# Kernels of these multiply the most; depthwise ones have few weights and lose much with each.
_KINDS = (
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
    keras.layers.Conv2DTranspose,
    keras.layers.Dense,
)


@dataclass(frozen=True)
class PolynomialSchedule:
    """Sparsity over the steps of a training: fast at first, slower towards the end.

    s(t) = final + (initial - final) * (1 - (t - begin) / (end - begin)) ** power
    (Zhu & Gupta 2017, "To Prune, or Not to Prune").

    Attributes:
        final: share of zeros from step `end` on, in [0, 1).
        end: the step at which it is reached.
        begin: the step before which there is none.
        initial: share of zeros at `begin`.
        power: 3 in the paper.
        every: steps between updates of the masks.
    """

    final: float
    end: int
    begin: int = 0
    initial: float = 0.0
    power: float = 3.0
    every: int = 10

    def __post_init__(self) -> None:
        if not 0 <= self.initial <= self.final < 1:
            raise EdgeheadsError(
                "sparsity must satisfy 0 <= initial <= final < 1, received initial "
                f"{self.initial} and final {self.final}"
            )
        if not 0 <= self.begin <= self.end or self.every < 1 or self.power <= 0:
            raise EdgeheadsError(
                "a schedule needs 0 <= begin <= end, every >= 1 and power > 0, received begin "
                f"{self.begin}, end {self.end}, every {self.every}, power {self.power}"
            )

    def sparsity(self, step: int) -> float:
        """Return the share of zeros after so many steps."""
        if step < self.begin:
            return 0.0
        if step >= self.end:
            return self.final
        left = 1 - (step - self.begin) / (self.end - self.begin)
        return self.final + (self.initial - self.final) * left**self.power

    def due(self, step: int) -> bool:
        """Return whether the masks change after so many steps."""
        within = self.begin <= step <= self.end
        return within and (step == self.end or (step - self.begin) % self.every == 0)


def keep_mask(kernel: Array, sparsity: float, pattern: Pattern) -> Mask:
    """Return which weights of a kernel stay: the largest, [shape of the kernel].

    Args:
        kernel: [..., inputs, outputs].
        sparsity: share of zeros. Of the pattern n:m, as many groups lose their m - n smallest
            weights as give that share; what is left over behind the last group stays.
        pattern: where zeros may stand.
    """
    size = np.abs(np.asarray(kernel, np.float64)).reshape(-1, kernel.shape[-1])
    if pattern.kind == "n:m":
        keep = _keep_nm(size, sparsity, pattern)
    else:
        rows, columns = (pattern.rows, pattern.columns) if pattern.kind == "block" else (1, 1)
        blocks = _block_means(size, rows, columns)
        keep = np.ones(blocks.size, bool)
        keep[np.argsort(blocks, axis=None, kind="stable")[: round(sparsity * blocks.size)]] = False
        keep = keep.reshape(blocks.shape).repeat(rows, 0).repeat(columns, 1)
        keep = keep[: size.shape[0], : size.shape[1]]
    return keep.reshape(kernel.shape)


def _keep_nm(size: NDArray[np.float64], sparsity: float, pattern: Pattern) -> Mask:
    zeros, of = pattern.columns - pattern.rows, pattern.columns
    whole = size.shape[0] // of
    keep = np.ones(size.shape, bool)
    groups = size[: whole * of].reshape(whole, of, -1)
    order = np.argsort(groups, axis=1, kind="stable")
    lost = np.take_along_axis(groups, order[:, :zeros], 1).sum(axis=1)
    share = min(1.0, sparsity * of / zeros)
    chosen = np.zeros(lost.size, bool)
    chosen[np.argsort(lost, axis=None, kind="stable")[: round(share * lost.size)]] = True
    inside = np.ones(groups.shape, bool)
    np.put_along_axis(inside, order[:, :zeros], False, 1)
    inside |= ~chosen.reshape(lost.shape)[:, None, :]
    keep[: whole * of] = inside.reshape(whole * of, -1)
    return keep


def _block_means(size: NDArray[np.float64], rows: int, columns: int) -> NDArray[np.float64]:
    height, width = (-size.shape[0] % rows, -size.shape[1] % columns)
    # Blocks over the border are judged by the weights that they have.
    padded = np.pad(size, ((0, height), (0, width)), constant_values=np.nan)
    blocks = padded.reshape(padded.shape[0] // rows, rows, padded.shape[1] // columns, columns)
    return np.asarray(np.nanmean(blocks, axis=(1, 3)))


def prunable_kernels(model: keras.Model, *, skip: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return {layer: kernel variable} of convolutions and dense layers, models inside included.

    Of layers of one name, in different models inside, the later ones are called "NAME_again".

    Args:
        model: built.
        skip: names of layers to leave alone.
    """
    found: dict[str, Any] = {}
    for layer in model._flatten_layers(include_self=False):
        depthwise = isinstance(layer, (keras.layers.DepthwiseConv2D, keras.layers.DepthwiseConv1D))
        if isinstance(layer, _KINDS) and not depthwise and layer.name not in skip and layer.built:
            name = layer.name
            while name in found:  # models inside may call theirs alike
                name = f"{name}_again"
            found[name] = layer.kernel
    if not found:
        raise EdgeheadsError(
            f"model {model.name!r} has no convolution and no dense layer to prune"
            + (f" besides those to skip: {', '.join(skip)}" if skip else "; build it first")
        )
    return found


class KeepZeros(keras.callbacks.Callback):
    """Keeps weights that are exactly zero at zero while a sparse model trains on.

    The zeros themselves are the masks, so that they survive saving, loading and any other tool.

    Args:
        model: whose zeros to keep; it may be part of the model that is fitted.
    """

    def __init__(self, model: keras.Model) -> None:
        super().__init__()
        self._kernels = prunable_kernels(model)
        self.masks: dict[str, Mask] = {
            name: keras.ops.convert_to_numpy(kernel) != 0 for name, kernel in self._kernels.items()
        }

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Put zeros back that the optimizer moved."""
        # On JAX, Keras' loop holds the values while it runs.
        synchronize(self.model)
        self.apply()

    def apply(self, model: keras.Model | None = None) -> None:
        """Set what the masks say to zero, in the model or in another one of the same layers."""
        kernels = prunable_kernels(model) if model else self._kernels
        for name, mask in self.masks.items():
            if not mask.all():
                kernel = kernels[name]
                kernel.assign(kernel * keras.ops.cast(mask, kernel.dtype))


class MagnitudePruning(KeepZeros):
    """Sets ever more of the smallest weights to zero while a model trains.

        pruning = MagnitudePruning(model, PolynomialSchedule(final=0.8, end=1000), "2:4")
        model.fit(..., callbacks=[pruning])
        sparse = strip(model, pruning)

    Each kernel gets the same share of zeros. Those that a model has when it comes stay.

    Args:
        model: what is pruned; it may be part of the model that is fitted.
        schedule: sparsity over the steps.
        pattern: see `parse_pattern`.
        skip: names of layers to leave alone.

    Attributes:
        masks: {layer: which weights stay}.
        step: how many steps were taken.
    """

    def __init__(
        self,
        model: keras.Model,
        schedule: PolynomialSchedule,
        pattern: Pattern | str = "unstructured",
        *,
        skip: tuple[str, ...] = (),
    ) -> None:
        super().__init__(model)
        self.schedule = schedule
        self.pattern = parse_pattern(pattern) if isinstance(pattern, str) else pattern
        self.step = 0
        chosen = {id(kernel) for kernel in prunable_kernels(model, skip=skip).values()}
        self._skip = {name for name, kernel in self._kernels.items() if id(kernel) not in chosen}
        # Their kernels are [height, width, outputs, inputs].
        self._turned = {
            id(layer.kernel)
            for layer in model._flatten_layers(include_self=False)
            if isinstance(layer, keras.layers.Conv2DTranspose)
        }
        require_fitting(self.pattern, schedule.final)

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Move the masks where it is due, and apply them."""
        self.step += 1
        synchronize(self.model)
        if self.schedule.due(self.step):
            self.update(self.schedule.sparsity(self.step))
        self.apply()

    def resume(self, step: int) -> None:
        """Go on in a model whose weights were restored to what they were after a step."""
        self.step = step
        for name, kernel in self._kernels.items():
            self.masks[name] = keras.ops.convert_to_numpy(kernel) != 0

    def update(self, sparsity: float) -> None:
        """Choose the masks for a share of zeros: the smallest weights as they are now."""
        for name, kernel in self._kernels.items():
            if name not in self._skip:
                values = keras.ops.convert_to_numpy(kernel)
                if id(kernel) in self._turned:
                    turned = keep_mask(np.swapaxes(values, -1, -2), sparsity, self.pattern)
                    self.masks[name] = np.swapaxes(turned, -1, -2)
                else:
                    self.masks[name] = keep_mask(values, sparsity, self.pattern)


def strip(model: keras.Model, pruning: KeepZeros | None = None) -> keras.Model:
    """Return an ordinary copy of a sparse model, without training state, its zeros exact.

    Args:
        model: that was pruned.
        pruning: whose masks to apply a last time, where averages or a restored checkpoint may
            have moved weights after the last step.

    Raises:
        EdgeheadsError: the masks are of other layers.
    """
    twin = type(model).from_config(model.get_config())
    twin.set_weights(model.get_weights())
    masks: Mapping[str, Mask] = pruning.masks if pruning else {}
    kernels = prunable_kernels(twin)
    for name, mask in masks.items():
        if name not in kernels or kernels[name].shape != mask.shape:
            raise EdgeheadsError(
                f"the masks are of another model: {model.name!r} has no layer {name!r} with a "
                f"kernel of shape {mask.shape}; strip the model that was pruned"
            )
        kernels[name].assign(kernels[name] * keras.ops.cast(mask, kernels[name].dtype))
    return twin
