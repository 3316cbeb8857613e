"""Functional models as flat graphs: who feeds whom, and copies in which layers are others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import keras

from edgeheads.errors import EdgeheadsError

__all__ = [
    "Call",
    "Node",
    "OutputsOf",
    "calls",
    "copy_layer",
    "copy_once",
    "flatten",
    "name_outputs",
    "rewrite",
    "walk",
]

# Given a layer of the old graph and the new graph's tensors it would be called with, returns the
# tensor that takes the place of its output.
Visit = Callable[..., Any]

# Given a graph, returns the tensors of it that the file returns, by their names in the file.
OutputsOf = Callable[[keras.Model], Mapping[str, Any]]


@dataclass(frozen=True)
class Node:
    """One layer of a flat graph, and its neighbours by name.

    Attributes:
        layer: a Keras layer, or the operation that `x + y` and `keras.ops` leave in a graph.
        inputs: the layers whose outputs it takes, in the order of the call; one that is taken
            twice stands here twice.
        consumers: the layers that take its output, in topological order, each once.
        is_output: whether the model returns its output.
    """

    layer: Any
    inputs: tuple[str, ...]
    consumers: tuple[str, ...]
    is_output: bool

    @property
    def name(self) -> str:
        """Return the layer's name, which is unique in the graph."""
        return str(self.layer.name)


def walk(model: keras.Model) -> dict[str, Node]:
    """Return the layers by name, each after those that feed it. Input layers come first.

    Args:
        model: a flat functional model, see `flatten`.

    Raises:
        EdgeheadsError: a model inside the model, or a layer that is called twice.
    """
    nodes = list(_nodes(model))
    times = Counter(node.operation.name for node in nodes)
    for node in nodes:
        if isinstance(node.operation, keras.Model):
            raise EdgeheadsError(
                f"model {model.name!r} holds the model {node.operation.name!r} as one layer; "
                "pass it through edgeheads.compression.graph.flatten first"
            )
        if times[node.operation.name] > 1:
            raise EdgeheadsError(_shared(node.operation, times[node.operation.name]))
    inputs = {node.operation.name: _producers(node) for node in nodes}
    consumers: dict[str, list[str]] = {name: [] for name in inputs}
    for name, producers in inputs.items():
        for producer in dict.fromkeys(producers):
            consumers[producer].append(name)
    outputs = {tensor._keras_history.operation.name for tensor in model.outputs}
    return {
        node.operation.name: Node(
            node.operation,
            inputs[node.operation.name],
            tuple(consumers[node.operation.name]),
            node.operation.name in outputs,
        )
        for node in nodes
    }


@dataclass(frozen=True)
class Call:
    """One call of a layer or operation; a layer that several levels share has one for each.

    Attributes:
        layer: a Keras layer, or an operation of `keras.ops`.
        inputs: the symbolic tensors it takes, in the order of the call.
        outputs: the symbolic tensors it returns.
        args: positional arguments of the call, the inputs among them.
        kwargs: keyword arguments of the call.
    """

    layer: Any
    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


def calls(model: keras.Model) -> Iterator[Call]:
    """Yield every call in the graph, each after those that feed it. Input layers come first."""
    for node in _nodes(model):
        yield Call(
            node.operation,
            () if node.is_input else tuple(node.input_tensors),
            tuple(node.outputs),
            () if node.is_input else tuple(node.arguments.args),
            {} if node.is_input else dict(node.arguments.kwargs),
        )


def flatten(model: keras.Model) -> keras.Model:
    """Return a copy, weights included, in which models inside the model are laid open.

    Layers keep their names; one whose name is taken gets that of the model it was in before it.

    Raises:
        EdgeheadsError: a model that is not functional, or was never built; a layer with weights
            that is called twice.
    """
    _require_functional(model)
    originals: dict[str, keras.layers.Layer] = {}

    def inline(inner: keras.Model, inputs: Any, prefix: str) -> Any:
        def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
            if isinstance(layer, keras.Model):
                _require_functional(layer)
                return inline(_functional(layer), args[0], f"{prefix}{layer.name}_")
            if not isinstance(layer, keras.layers.Layer):
                return layer(*args, **kwargs)
            name = layer.name
            if name in originals and layer.weights and originals[name] is layer:
                raise EdgeheadsError(_shared(layer, 2))
            while name in originals:
                name = f"{prefix}{name}" if prefix and name == layer.name else f"{name}_again"
            originals[name] = layer
            return copy_layer(layer, name=name)(*args, **kwargs)

        return inner._run_through_graph(inputs, call_fn=call)

    source = _functional(model)
    inputs = _fresh_inputs(source)
    flat = keras.Model(inputs, inline(source, inputs, ""), name=model.name)
    _take_weights(flat, originals)
    return flat


def name_outputs(model: keras.Model) -> dict[str, Any]:
    """Return {name in the file: tensor} of all that a model returns."""
    return {f"output_{place}": tensor for place, tensor in enumerate(model.outputs)}


def copy_once() -> Visit:
    """Return what copies layers for `rewrite`: one that is called more than once stays one."""
    twins: dict[str, keras.layers.Layer] = {}

    def visit(layer: keras.layers.Layer, *args: Any, **kwargs: Any) -> Any:
        if layer.name not in twins:
            twins[layer.name] = copy_layer(layer)
        return twins[layer.name](*args, **kwargs)

    return visit


def rewrite(
    model: keras.Model, visit: Visit, after: Callable[..., Any] | None = None
) -> keras.Model:
    """Return a copy of a flat model in which `visit` decides what each layer becomes.

    `visit(layer, *args, **kwargs)` gets the old layer and the new tensors, and returns a new
    tensor: `copy_layer(layer)(*args, **kwargs)` keeps the layer, `args[0]` leaves it out, other
    layers replace it. A new layer of the name and the weight shapes of an old one gets its
    weights; the caller sets those of all others.

    Args:
        model: a flat functional model, see `flatten`. It is not changed.
        visit: is called once for every layer but the inputs, each after those that feed it.
        after: gets each layer, inputs and operations of `keras.ops` among them, in the order of
            `calls`, the tensor in the place of its output, and what it was called with; returns
            what its consumers take.
    """

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        function = visit if isinstance(layer, keras.layers.Layer) else None
        result = function(layer, *args, **kwargs) if function else layer(*args, **kwargs)
        return after(layer, result, *args) if after else result

    inputs = fed = _fresh_inputs(model)
    if after:
        fed = keras.tree.map_structure(
            lambda old, new: after(old._keras_history.operation, new), model.input, inputs
        )
    twin = keras.Model(inputs, model._run_through_graph(fed, call_fn=call), name=model.name)
    _take_weights(twin, {layer.name: layer for layer in model.layers})
    return twin


def copy_layer(layer: keras.layers.Layer, **changes: Any) -> keras.layers.Layer:
    """Return a new layer, not built, of the same name and options but for the changes."""
    twin: keras.layers.Layer = type(layer).from_config({**layer.get_config(), **changes})
    twin.trainable = layer.trainable
    return twin


# A functional model has no public way to its nodes: these three names of Keras', and
# `_keras_history`, are used in this file only.


def _nodes(model: keras.Model) -> Iterator[Any]:
    for depth in sorted(model._nodes_by_depth, reverse=True):
        for node in model._nodes_by_depth[depth]:
            if node.operation is not None:
                yield node


def _producers(node: Any) -> tuple[str, ...]:
    if node.is_input:
        return ()
    return tuple(tensor._keras_history.operation.name for tensor in node.input_tensors)


def _functional(model: keras.Model) -> keras.Model:
    """Return the functional model that a Sequential is underneath."""
    return keras.Model(model.inputs[0], model.outputs[0]) if _is_sequential(model) else model


def _is_sequential(model: keras.Model) -> bool:
    return isinstance(model, keras.Sequential)


def _require_functional(model: keras.Model) -> None:
    if _is_sequential(model) and model.built and model.inputs:
        return
    if not hasattr(model, "_nodes_by_depth"):
        raise EdgeheadsError(
            f"model {model.name!r} must be a functional Keras model, received "
            f"{type(model).__name__}{' that was never built' if _is_sequential(model) else ''}; "
            "call it on a keras.Input and wrap both in keras.Model(inputs, outputs)"
        )


def _fresh_inputs(model: keras.Model) -> Any:
    return keras.tree.map_structure(
        lambda tensor: keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype, name=tensor.name),
        model.input,
    )


def _take_weights(model: keras.Model, originals: dict[str, keras.layers.Layer]) -> None:
    for layer in model.layers:
        original = originals.get(layer.name)
        if original is None or not layer.weights:
            continue
        shapes = [weight.shape for weight in layer.weights]
        if shapes == [weight.shape for weight in original.weights]:
            layer.set_weights(original.get_weights())
            if isinstance(layer, keras.layers.Normalization):
                layer.finalize_state()  # It computes with constants made of its weights.


def _shared(layer: Any, times: int) -> str:
    return (
        f"layer {layer.name!r} is called {times} times; compression changes each layer for the one "
        "place it stands in: build the model with a layer of its own at every call"
    )
