"""How much a network needs each of its channels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from edgeheads.compression.prune.channels import Channels, Slot
from edgeheads.errors import EdgeheadsError, unknown_name
from edgeheads.tasks.base import Array

__all__ = ["IMPORTANCES", "NORMALIZATIONS", "Gradients", "importance", "loss_gradients"]

Scores = NDArray[np.float64]

# A model -> for each batch, {(layer, weight): gradient of the loss}.
Gradients = Callable[[keras.Model], Iterable[Mapping[tuple[str, int], Array]]]


def importance(
    channels: Channels,
    kind: str,
    *,
    normalization: str = "mean",
    gradients: Gradients | None = None,
) -> Scores:
    """Return how important each unit is, [channels.count]; infinite where `kind` does not say.

    Args:
        channels: of the model.
        kind: "l1", "l2": mean absolute, root mean square value of the kernels that make a channel
            (Li et al. 2017, "Pruning Filters for Efficient ConvNets"); "bn_scale": of the batch
            norms behind them (Liu et al. 2017, "Network Slimming"); "taylor": what the loss would
            change to first order if the channel were zero, squared, over batches (Molchanov et
            al. 2019, "Importance Estimation for Neural Network Pruning").
        normalization: what makes groups comparable: the scores of a group are divided by their
            "mean", "max" or "l2" norm, or, with "none", by nothing.
        gradients: for "taylor".

    Raises:
        EdgeheadsError: an unknown name; gradients that are missing or not finite; no batch norm.
    """
    if kind not in IMPORTANCES:
        raise unknown_name("importance", kind, IMPORTANCES)
    if normalization not in NORMALIZATIONS:
        raise unknown_name("normalization", normalization, NORMALIZATIONS)
    if kind == "taylor":
        scores = _taylor(channels, gradients)
    else:
        scores = _averaged(channels, IMPORTANCES[kind](channels))
    for group in channels.groups:
        own = scores[group.units]
        if np.isfinite(own).all():
            scale = NORMALIZATIONS[normalization](own)
            scores[group.units] = own / scale if scale > 0 else own
    return scores


def _l1(channels: Channels) -> Iterator[tuple[Slot, Scores]]:
    for slot, kernel in _kernels(channels):
        yield slot, np.abs(kernel).mean(axis=1)


def _l2(channels: Channels) -> Iterator[tuple[Slot, Scores]]:
    for slot, kernel in _kernels(channels):
        yield slot, np.sqrt(np.square(kernel).mean(axis=1))


def _bn_scale(channels: Channels) -> Iterator[tuple[Slot, Scores]]:
    found = False
    for slot in channels.slots:
        layer = channels.model.get_layer(slot.layer)
        norm = isinstance(layer, keras.layers.BatchNormalization)
        if norm and layer.scale and layer.weights[slot.weight] is layer.gamma:
            found = True
            yield slot, np.abs(np.asarray(layer.gamma, np.float64))
    if not found:
        raise EdgeheadsError(
            "importance bn_scale needs batch norm layers with a scale behind the channels, the "
            "model has none; choose l1, l2 or taylor"
        )


def _kernels(channels: Channels) -> Iterator[tuple[Slot, Scores]]:
    """Yield the kernels that make channels, as [channel, everything else]."""
    for slot in channels.slots:
        if slot.makes:
            kernel = np.asarray(
                channels.model.get_layer(slot.layer).weights[slot.weight], np.float64
            )
            yield slot, np.moveaxis(kernel, slot.axis, 0).reshape(len(slot.labels), -1)


def _averaged(channels: Channels, values: Iterable[tuple[Slot, Scores]]) -> Scores:
    """Return the mean of what the slots say of each unit."""
    totals, counts = np.zeros(channels.count + 1), np.zeros(channels.count + 1)
    for slot, value in values:
        units = channels.units[slot.labels]
        np.add.at(totals, units, value)
        np.add.at(counts, units, 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(counts > 0, totals / counts, np.inf)[:-1]


def _taylor(channels: Channels, gradients: Gradients | None) -> Scores:
    """Return the mean over batches of the squared change of the loss.

    Scaling a channel by a gate changes the loss by the sum of weight x gradient over the weights
    that are linear in the gate: a batch norm's scale and offset, else a kernel and its bias.
    """
    if gradients is None:
        raise EdgeheadsError(
            "importance taylor needs gradients of a loss on data, received none; "
            "give labelled data, or choose l1, l2 or bn_scale"
        )
    sources = _gates(channels)
    scores, batches = np.zeros(channels.count + 1), 0
    for batch in gradients(channels.model):
        for slots in sources.values():
            change = np.zeros(channels.count + 1)
            for slot in slots:
                product = _product(channels, slot, batch)
                np.add.at(change, channels.units[slot.labels], product)
            scores += np.square(change)
        batches += 1
    if not batches or not np.isfinite(scores).all():
        raise EdgeheadsError(
            f"importance taylor met {'no batch' if not batches else 'a loss that is not finite'}; "
            "check the data, or choose l1, l2 or bn_scale"
        )
    return scores[:-1] / batches


def _gates(channels: Channels) -> dict[str, list[Slot]]:
    """Return {layer: slots of its weights that are linear in a gate on its outputs}."""
    normed: dict[str, list[Slot]] = {}
    plain: dict[str, list[Slot]] = {}
    behind_norm: set[int] = set()
    for slot in channels.slots:
        layer = channels.model.get_layer(slot.layer)
        weight = layer.weights[slot.weight]
        if isinstance(layer, keras.layers.BatchNormalization):
            # Frozen or not: what is pruned need not be trained.
            if weight is getattr(layer, "gamma", None) or weight is getattr(layer, "beta", None):
                normed.setdefault(slot.layer, []).append(slot)
                behind_norm.update(channels.units[slot.labels].tolist())
        elif slot.makes or (len(weight.shape) == 1 and weight is getattr(layer, "bias", None)):
            plain.setdefault(slot.layer, []).append(slot)
    for name, slots in plain.items():
        units = {unit for slot in slots for unit in channels.units[slot.labels].tolist()}
        if not units <= behind_norm:
            normed[name] = slots
    return normed


def _product(
    channels: Channels, slot: Slot, batch: Mapping[tuple[str, int], Array]
) -> NDArray[np.float64]:
    gradient = batch.get((slot.layer, slot.weight))
    if gradient is None:
        return np.zeros(len(slot.labels))
    weight = np.asarray(channels.model.get_layer(slot.layer).weights[slot.weight], np.float64)
    product = np.moveaxis(weight * np.asarray(gradient, np.float64), slot.axis, 0)
    return product.reshape(len(slot.labels), -1).sum(axis=1)


def loss_gradients(
    loss: Callable[[Any, Any], Any], batches: Iterable[tuple[Any, Any]]
) -> Gradients:
    """Return what `importance` calls, from a loss and labelled batches.

    The network is in inference mode: batch norm uses its statistics and changes none.

    Args:
        loss: (targets, outputs) -> scalar, with `keras.ops`.
        batches: of (inputs, targets); read again for every model.

    Raises:
        EdgeheadsError: when called on another Keras backend than TensorFlow.
    """

    def compute(model: keras.Model) -> Iterator[Mapping[tuple[str, int], Array]]:
        if keras.backend.backend() != "tensorflow":
            raise EdgeheadsError(
                "importance taylor works on the Keras backend tensorflow, the active one is "
                f"{keras.backend.backend()}; choose l1, l2 or bn_scale, or set KERAS_BACKEND"
            )
        import tensorflow as tf

        # Of frozen layers, too: their channels are as important as any.
        places = {
            (layer.name, index): variable.value
            for layer in model.layers
            for index, variable in enumerate(layer.weights)
            if variable.value.dtype.is_floating
        }
        for inputs, targets in batches:
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(list(places.values()))
                value = loss(targets, model(inputs, training=False))
            found = tape.gradient(value, places)
            yield {
                place: np.asarray(tf.convert_to_tensor(gradient))
                for place, gradient in found.items()
                if gradient is not None
            }

    return compute


IMPORTANCES: dict[str, Callable[[Channels], Iterator[tuple[Slot, Scores]]]] = {
    "l1": _l1,
    "l2": _l2,
    "bn_scale": _bn_scale,
    "taylor": _l2,  # replaced by gradients, see `importance`
}

NORMALIZATIONS: dict[str, Callable[[Scores], float]] = {
    "mean": lambda scores: float(scores.mean()),
    "max": lambda scores: float(scores.max()),
    "l2": lambda scores: float(np.sqrt(np.square(scores).sum())),
    "none": lambda scores: 1.0,
}
