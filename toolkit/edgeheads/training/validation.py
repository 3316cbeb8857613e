"""Judging a model while it is trained, on samples that it is not trained on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from edgeheads.data.sample import LabelNames, Sample
from edgeheads.edge_model import EdgeModel
from edgeheads.errors import EdgeheadsError
from edgeheads.evaluate import score
from edgeheads.tasks.base import Metric, Task

__all__ = ["Validator", "judged_metric", "split_samples", "validation_steps"]


class Validator:
    """Scores a model on the validation split.

    Args:
        edge: the model; its weights are what is scored.
        task: scores it.
        samples: the split.
        names: of the samples' labels.
        steps: after which of them to score, the last included.
        patience: how many validations without a better value end the training; 0: none do.
    """

    def __init__(
        self,
        edge: EdgeModel,
        task: Task,
        samples: list[Sample],
        names: LabelNames,
        *,
        steps: frozenset[int],
        patience: int = 0,
    ) -> None:
        self.judge = judged_metric(task)
        self.steps = steps
        self.patience = patience
        self._edge = edge
        self._task = task
        self._source = _Samples(samples, names)

    def __call__(self) -> dict[str, float]:
        """Return the metrics of the model's present weights."""
        metrics: Mapping[str, float] = score(
            self._task,
            self._edge.decoding,
            self._source,
            self._edge.predictor(self._task),
            self._edge.size,
        )["metrics"]
        return {name: float(value) for name, value in metrics.items()}


def judged_metric(task: Task) -> Metric:
    """Return the metric that decides which weights are better: the first that files are held to."""
    return next(
        (metric for metric in task.metrics if metric.allowed_drop is not None), task.metrics[0]
    )


def validation_steps(steps: int, validations: int) -> frozenset[int]:
    """Return after which steps to validate: evenly spread, the last step included."""
    count = min(steps, validations)
    return frozenset(round(steps * part / count) for part in range(1, count + 1))


def split_samples(samples: list[Sample], fraction: float) -> tuple[list[Sample], list[Sample]]:
    """Return (training, validation) samples: a checksum of each name decides.

    Raises:
        EdgeheadsError: one of the two would be empty.
    """
    if fraction == 0:
        return samples, []
    train: list[Sample] = []
    validation: list[Sample] = []
    for sample in samples:
        (validation if _bucket(sample.name) < fraction else train).append(sample)
    if not train or not validation:
        raise EdgeheadsError(
            f"training.validation_fraction {fraction} leaves {len(train)} of {len(samples)} "
            f"samples for training and {len(validation)} for validation; change it, "
            "or set it to 0"
        )
    return train, validation


def _bucket(name: str) -> float:
    """Return a number in [0, 1) that the file's name decides; its folder may be moved.

    Not the checksum that may have chosen the test split: of the samples that left over, it would
    choose none.
    """
    digest = hashlib.sha256(Path(name).name.encode()).digest()
    return int.from_bytes(digest[:4], "big") / 2**32


class _Samples:
    """Samples in memory, as a source."""

    def __init__(self, samples: list[Sample], names: LabelNames) -> None:
        self._samples = samples
        self._names = names

    @property
    def names(self) -> LabelNames:
        return self._names

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Sample:
        return self._samples[index]

    def __iter__(self) -> Iterator[Sample]:
        return iter(self._samples)
