"""Several tasks on one trunk."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras

from edgeheads.errors import EdgeheadsError
from edgeheads.heads.base import BaseVisionHead
from edgeheads.heads.factory import create_vision_head
from edgeheads.heads.layers.norm import activate
from edgeheads.heads.layers.part import Tensor
from edgeheads.tasks.task_type import TaskType

__all__ = ["MultiTaskHead"]


@keras.saving.register_keras_serializable(package="edgeheads")
class MultiTaskHead(BaseVisionHead):
    """One head per task on maps that all of them share.

    Every map is projected to `hidden_dim` channels, and the coarsest goes through the FFN branch,
    once for all tasks. With `use_attention`, each task then looks at the coarsest map by an
    attention branch of its own (after Liu et al. 2019, "End-to-End Multi-Task Learning with
    Attention").

    Args:
        task_configs: {task: options of its head}; a task is a `TaskType` or a name of one.
        **options: of the trunk; see `BaseVisionHead`.

    Attributes:
        heads: {task value: head}, in the order given.

    Returns: {task value: that task's outputs}.
    """

    task = TaskType.MULTI_TASK
    edge_parts = ()

    def __init__(
        self, *, task_configs: Mapping[TaskType | str, Mapping[str, Any]], **options: Any
    ) -> None:
        super().__init__(**options)
        configs = {TaskType.parse(task): _plain(config) for task, config in task_configs.items()}
        if not configs or len(configs) < len(task_configs) or TaskType.MULTI_TASK in configs:
            raise EdgeheadsError(
                "MultiTaskHead: task_configs must hold at least one task, each one once and none "
                f"multi-task itself, received {[str(task) for task in task_configs]}; for example "
                "create_multi_task_head({'segmentation': {'num_classes': 21}, 'depth': {}})"
            )
        self.task_configs = {task.value: config for task, config in configs.items()}
        self.heads = {
            name: create_vision_head(
                name,
                **{
                    "name": f"{self.name}_{name.replace('-', '_')}",
                    "dtype": self.dtype_policy,
                    "checkpoint": self.checkpoint,
                    **config,
                },
            )
            for name, config in self.task_configs.items()
        }

    def build(self, input_shape: Any) -> None:
        """Create every sublayer of the trunk and of the heads."""
        super().build(input_shape)
        for head in self.heads.values():
            head.built = True

    @property
    def reads_finer_maps(self) -> bool:
        """Whether any of the heads does."""
        return any(head.reads_finer_maps for head in self.heads.values())

    def forward(self, maps: list[Tensor]) -> dict[str, dict[str, Tensor]]:
        """Compute every task's outputs from maps, fine to coarse."""
        finer, coarsest = maps[:-1], self._shared(maps[-1], len(maps) - 1)
        if self.reads_finer_maps:
            finer = [self._shared(x, index) for index, x in enumerate(finer)]
        if self.use_ffn:
            coarsest = self.stage("ffn", self._feed_forward, coarsest)
        return {
            name: head.forward([*finer, self._seen_by(name, coarsest)])
            for name, head in self.heads.items()
        }

    def _shared(self, x: Tensor, index: int) -> Tensor:
        x = self.project(x, self.hidden_dim, f"shared_{index}")
        return activate(self.part, x, self.activation_type, f"shared_{index}_act")

    def _seen_by(self, task: str, x: Tensor) -> Tensor:
        if not self.use_attention:
            return x
        # Not "<task>_attention", which is what the task's own head calls its branch.
        name = f"attention_{task.replace('-', '_')}"
        return self.stage(name, lambda x: self._attend(x, name), x)

    def edge_outputs(self) -> dict[str, str]:
        """Return {task value_part: layer name}; see `BaseVisionHead.edge_outputs`."""
        return {
            f"{name}_{part}": layer
            for name, head in self.heads.items()
            for part, layer in head.edge_outputs().items()
        }

    def get_config(self) -> dict[str, Any]:
        """Return the keyword arguments that make an equal head."""
        return {**super().get_config(), "task_configs": self.task_configs}


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """Copy options; a file has lists where the code has tuples."""
    return {
        key: tuple(value) if isinstance(value, list) else value for key, value in config.items()
    }
