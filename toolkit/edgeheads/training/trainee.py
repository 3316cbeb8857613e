"""The model that is trained, where it is not the one that is wanted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import keras

from edgeheads.data.sample import LabelNames
from edgeheads.edge_model import EdgeModel, layer_prefix, network_parts
from edgeheads.heads.base import BaseVisionHead
from edgeheads.model import build_model, make_head
from edgeheads.recipe import Recipe
from edgeheads.tasks.base import Task
from edgeheads.training.distribution import Distribution

__all__ = ["Trainee", "make_trainee"]


@dataclass(frozen=True)
class Trainee:
    """What is trained.

    Attributes:
        flat: a flat graph with the weights of the wanted model, in the same order.
        called: computes the outputs, from the same variables.
        backbone: the layers of the backbone.
    """

    flat: keras.Model
    called: keras.Model
    backbone: list[keras.layers.Layer]


def make_trainee(
    edge: EdgeModel, recipe: Recipe, task: Task, names: LabelNames, distribution: Distribution
) -> Trainee:
    """Return the wanted model itself, or a second one, with the same values in its weights.

    A second one computes in another precision, keeps the present weights apart from their
    average, lives on several devices, or has its head as one layer, which can compute its inside
    again instead of keeping it.
    """
    training = recipe.training
    if (
        training.precision == "float32"
        and not training.ema_decay
        and not training.recompute
        and distribution.devices == 1
    ):
        return Trainee(edge.model, edge.model, _backbone(edge.model, task))
    with distribution.building(), _dtype_policy(training.precision):
        backbone, options = network_parts(recipe, task, names)
        if training.recompute:
            options["checkpoint"] = True
        head = make_head(backbone, task.type, **options)
        flat = build_model(backbone, head)
        called = _Nested(backbone, head) if training.recompute else flat
        flat.set_weights(edge.model.get_weights())
    return Trainee(flat, called, _backbone(flat, task))


class _Nested(keras.Model):
    """A backbone and a head that is one layer."""

    def __init__(self, backbone: keras.Model, head: BaseVisionHead) -> None:
        super().__init__(name="nested", dtype="float32")
        self.backbone = backbone
        self.head = head
        self.built = True

    def call(self, x: Any, training: bool | None = None) -> Any:
        return self.head(self.backbone(x, training=training), training=training)


def _backbone(model: keras.Model, task: Task) -> list[keras.layers.Layer]:
    prefix = f"{layer_prefix(task)}_"
    return [layer for layer in model.layers if not layer.name.startswith(prefix)]


@contextmanager
def _dtype_policy(name: str) -> Iterator[None]:
    usual = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(usual)
