"""Several tasks in one file: one shared trunk, and each task's own room for all the rest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeheads.data.sample import IGNORED, LabelNames, Objects, Sample
from edgeheads.errors import EdgeheadsError
from edgeheads.heads.configuration import HeadConfiguration
from edgeheads.tasks import get_task
from edgeheads.tasks.base import Array, Evaluator, Loss, Prediction, Task
from edgeheads.tasks.task_type import TaskType

__all__ = ["MultiTask", "MultiTaskEvaluator"]


class MultiTask(Task):
    """Trains, decodes, scores and draws several tasks at once.

    What belongs to one of them is named "<task>/<name>": targets, predictions, metrics, labels.
    A sample needs the label of one task at least; it teaches, and counts for, those it has.

    Args:
        options: the recipe's `head.options`; "task_configs" says which tasks, default those of
            the preset.
    """

    type = TaskType.MULTI_TASK
    title = "several tasks"
    default_recipe = "multi-task-mobilenet_v2_0.35-128"

    def __init__(self, options: Mapping[str, Any] | None = None) -> None:
        super().__init__(options)
        configs = self.options.get("task_configs") or {name: {} for name in _preset_tasks()}
        self.rooms: dict[str, Task] = {}
        for name, config in configs.items():
            task = TaskType.parse(name)
            if task is TaskType.MULTI_TASK or task.value in self.rooms:
                raise EdgeheadsError(
                    "head.options.task_configs must name each task once and none multi-task "
                    f"itself, received {', '.join(configs)}"
                )
            self.rooms[task.value] = get_task(task, config)
        self.metrics = tuple(
            replace(metric, name=f"{name}/{metric.name}", title=f"{name} {metric.title}")
            for name, room in self.rooms.items()
            for metric in room.metrics
        )
        self.protocol = "; ".join(f"{name}: {room.protocol}" for name, room in self.rooms.items())
        legal = [set(room.augmentations) for room in self.rooms.values()]
        first = next(iter(self.rooms.values()))
        self.augmentations = tuple(
            one for one in first.augmentations if all(one in names for names in legal)
        )

    def parts(self) -> dict[str, Task]:
        """Return the tasks, by name."""
        return self.rooms

    # Before the Bundle

    def head_config(self, preset: Mapping[str, Any], names: LabelNames) -> dict[str, Any]:
        """Return the trunk's options, and each head's on top of its own preset."""
        configs = {
            name: room.head_config(preset["task_configs"].get(name, {}), names)
            for name, room in self.rooms.items()
        }
        return {**preset, **self.options, "task_configs": configs}

    def labels(self, names: LabelNames) -> tuple[str, ...]:
        """Return every task's labels, each with its task in front."""
        return tuple(
            f"{name}/{label}" for name, room in self.rooms.items() for label in room.labels(names)
        )

    def check(self, sample: Sample) -> None:
        """Require the label of one task."""
        reasons = []
        for room in self.rooms.values():
            try:
                room.check(sample)
            except EdgeheadsError as error:
                reasons.append(str(error))
        if len(reasons) == len(self.rooms):
            raise EdgeheadsError(f"{sample.name} has a label of no task: {'; '.join(reasons)}")

    def target(
        self, sample: Sample, size: tuple[int, int], decoding: Mapping[str, Any]
    ) -> dict[str, Array]:
        """Return every task's targets; of a task without a label, those that count for nothing."""
        targets = {}
        for name, room in self.rooms.items():
            inner = decoding["tasks"][name]["decoding"]
            labelled = sample if room.accepts(sample) else _unlabelled(sample, inner)
            for key, array in room.target(labelled, size, inner).items():
                targets[f"{name}/{key}"] = array
        return targets

    def loss(self, targets: Mapping[str, Any], outputs: Mapping[str, Any]) -> Any:
        """Return the plain sum of the tasks' losses."""
        from edgeheads.training.losses.multi_task import MultiTaskLoss

        losses = {name: room.loss for name, room in self.rooms.items()}
        return MultiTaskLoss(losses, dict.fromkeys(losses, 1.0))(targets, outputs)

    def training_loss(
        self,
        names: LabelNames,
        samples: Iterable[Sample],
        task_weights: Mapping[str, float] | None = None,
    ) -> Loss:
        """Return the sum of the tasks' losses, with given weights or learned ones."""
        from edgeheads.training.losses.multi_task import MultiTaskLoss

        samples = list(samples)
        losses = {
            name: room.training_loss(names, _labelled(room, samples))
            for name, room in self.rooms.items()
        }
        return MultiTaskLoss(losses, task_weights)

    def edge_outputs(self, model: Any, prefix: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return every task's outputs, each with its task in front."""
        outputs: dict[str, Any] = {}
        tasks: dict[str, Any] = {}
        for name, room in self.rooms.items():
            identifier = name.replace("-", "_")
            own, decoding = room.edge_outputs(model, f"{prefix}_{identifier}")
            outputs |= {f"{identifier}_{one}": tensor for one, tensor in own.items()}
            tasks[name] = {
                "outputs": {one: f"{identifier}_{one}" for one in own},
                "decoding": decoding,
            }
        return outputs, {"tasks": tasks}

    def baseline(self, samples: Iterable[Sample], names: LabelNames) -> dict[str, Any]:
        """Return every task's own trivial predictor."""
        samples = list(samples)
        return {
            "kind": "each task's baseline",
            "tasks": {
                name: room.baseline(_labelled(room, samples), names)
                for name, room in self.rooms.items()
            },
        }

    # After the Bundle

    def decode(self, outputs: Mapping[str, Array], decoding: Mapping[str, Any]) -> Prediction:
        """Return every task's prediction, each with its task in front."""
        prediction: Prediction = {}
        for name, room in self.rooms.items():
            inner = decoding["tasks"][name]
            own = {one: outputs[full] for one, full in inner["outputs"].items()}
            prediction |= _prefixed(name, room.decode(own, inner["decoding"]))
        return prediction

    def predict_baseline(self, baseline: Mapping[str, Any], size: tuple[int, int]) -> Prediction:
        """Return what every task's trivial predictor says."""
        prediction: Prediction = {}
        for name, room in self.rooms.items():
            prediction |= _prefixed(name, room.predict_baseline(baseline["tasks"][name], size))
        return prediction

    def evaluator(self, decoding: Mapping[str, Any]) -> MultiTaskEvaluator:
        """Return a fresh accumulator."""
        return MultiTaskEvaluator(
            {
                name: (room, room.evaluator(decoding["tasks"][name]["decoding"]))
                for name, room in self.rooms.items()
            }
        )

    def draw(
        self, image: NDArray[np.uint8], prediction: Prediction, labels: tuple[str, ...] = ()
    ) -> NDArray[np.uint8]:
        """Return every task's picture, one below the other."""
        return _stacked(
            room.draw(image, of_task(name, prediction), labels_of(name, labels))
            for name, room in self.rooms.items()
        )

    def draw_label(
        self, image: NDArray[np.uint8], sample: Sample, names: LabelNames
    ) -> NDArray[np.uint8]:
        """Return the image with the label of every task that has one, one below the other."""
        return _stacked(
            room.draw_label(image, sample, names)
            for room in self.rooms.values()
            if room.accepts(sample)
        )


class MultiTaskEvaluator(Evaluator):
    """Every task's metrics, each over the samples that have its label.

    Args:
        evaluators: {task: (its room, its evaluator)}.
    """

    def __init__(self, evaluators: Mapping[str, tuple[Task, Evaluator]]) -> None:
        self._evaluators = evaluators

    def update(self, prediction: Prediction, sample: Sample) -> None:
        """Hand each task its part."""
        for name, (room, evaluator) in self._evaluators.items():
            if room.accepts(sample):
                evaluator.update(of_task(name, prediction), sample)

    def result(self) -> dict[str, Any]:
        """Return all that the tasks' evaluators return, each with its task in front."""
        results = {name: evaluator.result() for name, (_, evaluator) in self._evaluators.items()}
        merged: dict[str, Any] = {"metrics": {}, "counts": {}, "ranges": {}}
        for name, result in results.items():
            for kind, values in result.items():
                merged.setdefault(kind, {}).update(_prefixed(name, values))
        return merged


def of_task(task: str, named: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is named "<task>/...", without the task."""
    return {
        name.removeprefix(f"{task}/"): value
        for name, value in named.items()
        if name.startswith(f"{task}/")
    }


def labels_of(task: str, labels: tuple[str, ...]) -> tuple[str, ...]:
    """Return the labels of one task."""
    return tuple(of_task(task, dict.fromkeys(labels)))


def _prefixed(task: str, named: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{task}/{name}": value for name, value in named.items()}


def _preset_tasks() -> list[str]:
    return list(HeadConfiguration.get_efficient_config(TaskType.MULTI_TASK)["task_configs"])


def _labelled(room: Task, samples: Iterable[Sample]) -> list[Sample]:
    """Return the samples that have a task's label; one at least.

    Raises:
        EdgeheadsError: there is none.
    """
    found = [sample for sample in samples if room.accepts(sample)]
    if not found:
        raise EdgeheadsError(
            f"no sample has a label of task {room.type.value!r}; leave it out of "
            "head.options.task_configs, or give data with its labels"
        )
    return found


def _unlabelled(sample: Sample, decoding: Mapping[str, Any]) -> Sample:
    """Return the sample with labels of every kind that count for nothing in any loss."""
    height, width = sample.image.shape[:2]
    # A crowd over the whole image: whatever a detector finds in it, nobody can tell.
    anything = Objects(
        np.array([[0, 0, width, height]], np.float32),
        np.zeros(1, np.int32),
        np.ones(1, np.bool_),
        np.ones((1, height, width), np.bool_),
    )
    return replace(
        sample,
        label=IGNORED,
        objects=anything,
        semantic=np.full((height, width), IGNORED, np.int32),
        keypoints=np.zeros((decoding.get("num_keypoints", 1), 3), np.float32),
        depth=np.zeros((height, width), np.float32),
        normals=np.zeros((height, width, 3), np.float32),
    )


def _stacked(pictures: Iterable[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Return pictures of any size one below the other, on white."""
    rows = list(pictures)
    width = max(picture.shape[1] for picture in rows)
    canvas = [
        np.pad(picture, ((0, 8), (0, width - picture.shape[1]), (0, 0)), constant_values=255)
        for picture in rows
    ]
    return np.concatenate(canvas)[:-8]
