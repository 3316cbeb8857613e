"""The one file that knows both backbones and heads."""

from __future__ import annotations

from typing import Any

import keras

from edgeheads.backbones.base import Backbone
from edgeheads.heads.base import BaseVisionHead
from edgeheads.heads.configuration import HeadConfiguration
from edgeheads.heads.factory import create_vision_head
from edgeheads.tasks.task_type import TaskType

__all__ = ["build_model"]


def build_model(
    backbone: Backbone | keras.Model, head: BaseVisionHead | TaskType | str, **config: Any
) -> keras.Model:
    """Return one flat functional graph of stock Keras layers: a head on a backbone.

    Saved, it loads with `keras.saving.load_model` where edgeheads is not installed.

    Args:
        backbone: from `create_backbone`, or any functional model that returns a feature map,
            tokens, or a list or dictionary of them, fine to coarse.
        head: a head, or the task to create one for.
        config: the head's options where a task is given, on top of its efficient preset. A dense
            head's output is the size of the backbone's input unless `output_size` or
            `upsampling_factor` says otherwise.

    Raises:
        EdgeheadsError: see `create_vision_head`.
    """
    if not isinstance(head, BaseVisionHead):
        task = TaskType.parse(head)
        options = {**HeadConfiguration.get_efficient_config(task), **config}
        if "upsampling_factor" in options and "upsampling_factor" not in config:
            options.setdefault("output_size", tuple(backbone.input.shape[1:3]))
        head = create_vision_head(task, **{"name": task.value, **options})
    features = backbone.output
    outputs = head.connect(list(features.values()) if isinstance(features, dict) else features)
    return keras.Model(backbone.input, outputs, name=f"{backbone.name}_{head.name}")
