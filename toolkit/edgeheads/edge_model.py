"""A Keras model together with what of it becomes the file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from edgeheads.backbones import InputScaling, create_backbone
from edgeheads.backbones.base import Backbone
from edgeheads.compression.graph import OutputsOf
from edgeheads.compression.quantize.float_twin import in_float32
from edgeheads.contract import scale_pixels
from edgeheads.data.sample import LabelNames, Sample
from edgeheads.errors import EdgeheadsError
from edgeheads.evaluate import Predictor
from edgeheads.heads import HeadConfiguration
from edgeheads.model import build_model
from edgeheads.recipe import Recipe
from edgeheads.tasks.base import Array, Prediction, Task

__all__ = ["EdgeModel", "build", "file_outputs", "layer_prefix", "load", "network_parts"]

_BATCH = 16

_PRESETS = {
    "default": HeadConfiguration.get_default_config,
    "efficient": HeadConfiguration.get_efficient_config,
    "high_performance": HeadConfiguration.get_high_performance_config,
}


@dataclass(frozen=True)
class EdgeModel:
    """The part of a Keras model that becomes the file.

    Attributes:
        model: the flat graph.
        outputs: {output of the file: symbolic tensor of the graph}.
        decoding: how the task reads them; see `Task.decode`.
        scaling: what the graph takes, as a function of pixels.
        labels: what the outputs' last axis stands for.
    """

    model: keras.Model
    outputs: dict[str, Any]
    decoding: dict[str, Any]
    scaling: InputScaling
    labels: tuple[str, ...] = ()

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the input in pixels."""
        height, width = self.model.inputs[0].shape[1:3]
        return height, width

    def scaled(self, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Return images [H, W, 3] of the model's size as a batch of its real input values."""
        return scale_pixels(np.stack(images), self.scaling.scale, self.scaling.offset)

    def inputs_of(self, samples: Sequence[Sample]) -> Callable[[], Iterator[NDArray[np.float32]]]:
        """Return what yields the inputs [1, H, W, 3] of samples, again at every call."""

        def images() -> Iterator[NDArray[np.float32]]:
            for sample in samples:
                yield self.scaled([sample.image])

        return images

    def with_model(self, model: keras.Model, task: Task) -> EdgeModel:
        """Return the same of another graph, in which the task's outputs have the same names."""
        outputs, decoding = task.edge_outputs(model, layer_prefix(task))
        return replace(self, model=model, outputs=outputs, decoding=decoding)

    @cached_property
    def _graph(self) -> keras.Model:
        # One and the same, so that it is traced once.
        return keras.Model(self.model.inputs[0], self.outputs)

    def predict(self, images: Sequence[NDArray[np.uint8]]) -> dict[str, Array]:
        """Return the outputs [N, ...] of images [H, W, 3] of the model's size."""
        outputs = self._graph.predict(self.scaled(images), batch_size=_BATCH, verbose=0)
        return {name: np.asarray(array) for name, array in outputs.items()}

    def predictor(self, task: Task) -> Predictor:
        """Return what `evaluate.score` calls, for the float model."""

        def predict(images: Sequence[NDArray[np.uint8]]) -> list[Prediction]:
            return task.decode_each(self.predict(images), self.decoding)

        return predict


def build(recipe: Recipe, task: Task, names: LabelNames) -> EdgeModel:
    """Return the recipe's network, untrained but for the backbone's weights.

    Args:
        recipe: names the backbone and the head.
        task: the recipe's.
        names: of the labels it is to learn, which decide, for example, the number of classes.

    Raises:
        EdgeheadsError: see `create_backbone` and `create_vision_head`.
    """
    backbone, options = network_parts(recipe, task, names)
    model = build_model(backbone, task.type, **options)
    outputs, decoding = task.edge_outputs(model, layer_prefix(task))
    return EdgeModel(model, outputs, decoding, backbone.scaling, task.labels(names))


def network_parts(recipe: Recipe, task: Task, names: LabelNames) -> tuple[Backbone, dict[str, Any]]:
    """Return the recipe's backbone, and the options of the head on it.

    Raises:
        EdgeheadsError: see `create_backbone`.
    """
    section = recipe.backbone
    backbone = create_backbone(
        section.name,
        (*recipe.input_size, 3),
        weights=section.weights,
        width=section.width,
        levels=section.levels,
    )
    return backbone, task.head_config(_PRESETS[recipe.head.preset](task.type), names)


def load(path: Path, recipe: Recipe, task: Task, names: LabelNames) -> EdgeModel:
    """Return a trained `.keras` model; one that computes in 16 bits, in float32.

    Raises:
        EdgeheadsError: it cannot be loaded, takes another input than the recipe says, holds NaN,
            or has not the outputs of the task.
    """
    if not path.is_file():
        raise EdgeheadsError(f"model {path} does not exist; give a .keras file")
    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # zipfile, h5py, json and Keras each have their own
        raise EdgeheadsError(
            f"model {path} cannot be loaded ({' '.join(str(error).split())[:200]}); "
            "expected a .keras file of stock layers"
        ) from None
    # A Sequential model that was never called has none.
    shapes = [tuple(tensor.shape) for tensor in getattr(model, "inputs", None) or ()]
    if len(shapes) != 1 or shapes[0][1:] != (*recipe.input_size, 3):
        raise EdgeheadsError(
            f"model {path} must take one image of shape {(None, *recipe.input_size, 3)}, as the "
            f"recipe says, received {shapes}; set --input-size"
        )
    model = in_float32(model)
    for variable in model.weights:
        if not np.isfinite(keras.ops.convert_to_numpy(variable)).all():
            raise EdgeheadsError(
                f"model {path} holds NaN or infinite values in {variable.path}; train it again"
            )
    scaling = create_backbone(
        recipe.backbone.name, (*recipe.input_size, 3), width=recipe.backbone.width
    ).scaling
    outputs, decoding = task.edge_outputs(model, layer_prefix(task))
    return EdgeModel(model, outputs, decoding, scaling, task.labels(names))


def file_outputs(task: Task) -> OutputsOf:
    """Return what finds a task's outputs of the file in any graph of its model."""
    return lambda model: task.edge_outputs(model, layer_prefix(task))[0]


def layer_prefix(task: Task) -> str:
    """Return what `build_model` begins the names of a task's layers with."""
    return task.type.value.replace("-", "_")
