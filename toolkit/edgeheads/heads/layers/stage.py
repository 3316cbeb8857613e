"""Gradient checkpointing: compute a stage again in the backward pass instead of keeping it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from edgeheads.heads.layers.part import Tensor

__all__ = ["CHECKPOINT_BACKENDS", "in_context", "recomputed"]

CHECKPOINT_BACKENDS = ("tensorflow", "jax")


def recomputed(
    function: Callable[..., Tensor], layers: Sequence[keras.layers.Layer], dtype: Any
) -> Callable[..., Tensor]:
    """Return `function`, keeping only its arguments for the backward pass (Chen et al. 2016,
    "Training Deep Nets with Sublinear Memory Cost").

    Both passes see the same state: the second draws the same dropout masks, and does not move
    the statistics of batch norm again.

    Args:
        function: from tensors to one tensor.
        layers: every layer with variables that it calls, built.
        dtype: the compute policy.
    """
    # Named, since TensorFlow refuses a scope like Keras' own "__recomputed" at a graph's root.
    stage = _Recomputed(function, layers, dtype=dtype, name="recomputed")
    return lambda *tensors: stage(list(tensors))


def in_context(
    function: Callable[..., Any], dtype: Any, training: bool | None
) -> Callable[..., Any]:
    """Return `function`, run so that the layers inside see `training` and the compute policy.

    Args:
        function: from tensors to any structure of tensors.
        dtype: the compute policy.
        training: what the layers inside are to do.
    """
    layer = _InContext(function, dtype=dtype, name="in_context")
    return lambda *tensors: layer(list(tensors), training=training)


class _InContext(keras.layers.Layer):
    """See `in_context`: Keras tells the layers inside a layer, and no others."""

    def __init__(self, function: Callable[..., Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._function = function

    def call(self, tensors: list[Tensor], training: bool | None = None) -> Any:
        return self._function(*tensors)


class _Recomputed(keras.layers.Layer):
    """See `recomputed`."""

    def __init__(
        self,
        function: Callable[..., Tensor],
        layers: Sequence[keras.layers.Layer],
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._function = function
        self._used = list(layers)

    def call(self, tensors: list[Tensor], training: bool | None = None) -> Tensor:
        variables = [variable for layer in self._used for variable in layer.variables]
        learned = [variable for variable in variables if variable.trainable]
        state = [variable for variable in variables if not variable.trainable]
        # Copies: a `value` may be the variable itself, which moves on before the second pass.
        state_before = [(variable, ops.copy(variable.value)) for variable in state]

        def pure(*arguments: Tensor) -> list[Tensor]:
            values, inputs = arguments[: len(learned)], arguments[len(learned) :]
            mapping = [*zip(learned, values, strict=True), *state_before]
            with keras.StatelessScope(state_mapping=mapping) as scope:
                # The second pass runs after the first has left the layers around it.
                result = in_context(self._function, self.dtype_policy, training)(*inputs)
            return [result, *(scope.get_current_value(variable) for variable in state)]

        result, *state_after = _checkpoint(pure)(
            *(variable.value for variable in learned), *tensors
        )
        for variable, value in zip(state, state_after, strict=True):
            variable.assign(value)
        return result


def _checkpoint(function: Callable[..., Any]) -> Callable[..., Any]:
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        wrapped: Callable[..., Any] = tf.recompute_grad(function)
    else:
        import jax

        wrapped = jax.checkpoint(function)
    return wrapped
