"""The one file that knows both backbones and heads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras

from edgeheads.backbones.base import Backbone, InputScaling
from edgeheads.heads.base import BaseVisionHead
from edgeheads.heads.configuration import HeadConfiguration
from edgeheads.heads.enhancement import EnhancementHead
from edgeheads.heads.factory import create_vision_head, head_class
from edgeheads.tasks.task_type import TaskType

__all__ = ["build_model", "make_head"]


def build_model(
    backbone: Backbone | keras.Model, head: BaseVisionHead | TaskType | str, **config: Any
) -> keras.Model:
    """Return one flat functional graph of stock Keras layers: a head on a backbone.

    Saved, it loads with `keras.saving.load_model` where edgeheads is not installed.

    Args:
        backbone: from `create_backbone`, or any functional model that returns a feature map,
            tokens, or a list or dictionary of them, fine to coarse.
        head: a head, or the task to create one for.
        config: the head's options where a task is given, on top of its efficient preset. A map
            of pixels is of the size of the backbone's input unless `output_size` or
            `upsampling_factor` says otherwise; enhancement adds to the input image unless
            `residual=False`.

    Raises:
        EdgeheadsError: see `create_vision_head`.
    """
    if not isinstance(head, BaseVisionHead):
        head = make_head(backbone, head, **config)
    features = backbone.output
    if isinstance(head, EnhancementHead) and head.residual:
        maps = features.values() if isinstance(features, dict) else keras.tree.flatten(features)
        features = [_image(backbone, f"{head.name}_input"), *maps]
    outputs = head.connect(features)
    return keras.Model(backbone.input, outputs, name=f"{backbone.name}_{head.name}")


def make_head(
    backbone: Backbone | keras.Model, task: TaskType | str, **config: Any
) -> BaseVisionHead:
    """Return the head that `build_model` puts on a backbone for a task."""
    task = TaskType.parse(task)
    options = _options(task, config, tuple(backbone.input.shape[1:3]))
    return create_vision_head(task, **{"name": task.value.replace("-", "_"), **options})


def _options(
    task: TaskType, given: Mapping[str, Any], size: tuple[int | None, ...], alone: bool = True
) -> dict[str, Any]:
    """Complete what was given by the efficient preset and the size of the image."""
    options = {**HeadConfiguration.get_efficient_config(task), **given}
    if task is TaskType.MULTI_TASK:
        configs = {TaskType.parse(one): config for one, config in options["task_configs"].items()}
        own = "task_configs" in given
        options["task_configs"] = {
            one.value: _options(one, config if own else {}, size, alone=False)
            for one, config in configs.items()
        }
        return options
    if task is TaskType.ENHANCEMENT:
        # Among other tasks, the shared trunk is all that a head sees.
        options["residual"] = given.get("residual", alone)
    sized = "upsampling_factor" in given or "output_size" in given or options.get("residual")
    if head_class(task).output_follows_input and not sized and None not in size:
        options["output_size"] = size
    return options


def _image(backbone: keras.Model, name: str) -> Any:
    """Return the backbone's input as an image in [0, 1]."""
    scaling = getattr(backbone, "scaling", InputScaling())
    return keras.layers.Rescaling(
        scale=[1 / (255 * scale) for scale in scaling.scale],
        offset=[
            -offset / (255 * scale)
            for scale, offset in zip(scaling.scale, scaling.offset, strict=True)
        ],
        name=name,
    )(backbone.input)
