"""Hard-swish written in operations that int8 kernels are fast at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import Any

import keras

from edgeheads.compression.fold import has_plain_weights
from edgeheads.compression.graph import Call, copy_layer, rewrite
from edgeheads.compression.lint.activations import HARD_SWISH, activation_of, written_out
from edgeheads.compression.lint.rule import Network

__all__ = ["expand_hard_swish"]

# Layers whose output is k times as large where their input is, k > 0.
_PASSING = (
    keras.layers.AveragePooling2D,
    keras.layers.Dropout,
    keras.layers.Flatten,
    keras.layers.GlobalAveragePooling2D,
    keras.layers.GlobalMaxPooling2D,
    keras.layers.MaxPooling2D,
    keras.layers.Multiply,
    keras.layers.Reshape,
    keras.layers.UpSampling2D,
    keras.layers.ZeroPadding2D,
)
# Layers that take up a factor of their input by their first kernel.
_LINEAR = (
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv2DTranspose,
    keras.layers.Dense,
    keras.layers.DepthwiseConv2D,
    keras.layers.SeparableConv2D,
)
_SIXTH = 1 / 6


def expand_hard_swish(model: keras.Model) -> keras.Model:
    """Return a copy in which x relu6(x + 3) takes the place of x relu6(x + 3) / 6.

    The factor goes into the kernels of the layers that read it, through pooling and gates. The
    converter would make HARD_SWISH again of a product that ends in the factor. Where a layer
    cannot take it up (an addition, an output of the model), x is divided by 6 in front of the
    product.

    Args:
        model: a flat functional model. It is not changed. An activation that is an operation of
            `keras.ops`, not a layer or an option of one, stays as it is.
    """
    network = Network(model)
    absorbing: dict[str, float] = {}
    bare: set[str] = set()
    for call in _sites(network):
        takers = _takers(network, call)
        if takers is not None:
            bare.add(call.layer.name)
            # A layer takes up each factor that reaches it.
            for name in takers:
                absorbing[name] = absorbing.get(name, 1.0) * _SIXTH
    twins: dict[str, keras.layers.Layer] = {}
    sites = {call.layer.name: written_out(network, call) for call in _sites(network)}
    taken = {call.layer.name for call in network.calls}

    def visit(layer: keras.layers.Layer, *args: Any, **kwargs: Any) -> Any:
        name = layer.name
        if name not in sites:
            if name not in twins:
                twins[name] = copy_layer(layer)
            return twins[name](*args, **kwargs)
        index, x = sites[name], args[0]
        if index is not None:
            x = x[index]
        elif not _is_activation(layer):
            x = copy_layer(layer, activation="linear")(*args, **kwargs)
        return _expanded(x, _free(name, taken), divide=name not in bare)

    twin = rewrite(network.model, visit)
    for name, factor in absorbing.items():
        layer = twin.get_layer(name)
        kernel, *others = layer.get_weights()
        layer.set_weights([kernel * factor, *others])
    return twin


def _expanded(x: Any, name: str, *, divide: bool) -> Any:
    gate = keras.layers.Rescaling(1.0, 3.0, name=f"{name}_plus_3")(x)
    gate = keras.layers.ReLU(6.0, name=f"{name}_gate")(gate)
    if divide:
        x = keras.layers.Rescaling(_SIXTH, name=f"{name}_sixth")(x)
    return keras.layers.Multiply(name=f"{name}_product")([x, gate])


def _free(name: str, taken: Collection[str]) -> str:
    """Return what the new layers' names can begin with."""
    while any(f"{name}_{part}" in taken for part in ("plus_3", "gate", "sixth", "product")):
        name += "_swish"
    return name


def _sites(network: Network) -> list[Call]:
    """Return the calls of hard-swish; a layer that is called more than once is left alone."""
    times = Counter(call.layer.name for call in network.calls)
    return [
        call for call in network.calls if times[call.layer.name] == 1 and _is_site(network, call)
    ]


def _is_site(network: Network, call: Call) -> bool:
    # `rewrite` visits layers; operations of `keras.ops` pass it by.
    if not isinstance(call.layer, keras.layers.Layer):
        return False
    if activation_of(call.layer) in HARD_SWISH:
        return _is_activation(call.layer) or isinstance(call.layer, _LINEAR)
    return written_out(network, call) is not None


def _is_activation(layer: Any) -> bool:
    return isinstance(layer, keras.layers.Activation)


def _takers(network: Network, site: Call) -> set[str] | None:
    """Return the layers that can take up a factor of an output, all of them; None if one cannot."""
    times = Counter(call.layer.name for call in network.calls)
    takers: set[str] = set()
    scaled = {id(site)}
    waiting = [site]
    while waiting:
        call = waiting.pop()
        readers = network.readers(call)
        if network.is_output(call) or not readers:
            return None
        for one in readers:
            if times[one.layer.name] > 1:
                return None
            if isinstance(one.layer, _LINEAR) and has_plain_weights(one.layer):
                takers.add(one.layer.name)
            elif isinstance(one.layer, _PASSING):
                if id(one) not in scaled:
                    scaled.add(id(one))
                    waiting.append(one)
            else:
                return None
    # A product of two tensors that both carry the factor would carry its square.
    if any(
        sum(id(network.producer(tensor)) in scaled for tensor in call.inputs) > 1
        for call in network.calls
    ):
        return None
    return takers
