"""Batches of prepared samples for `keras.Model.fit`."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from edgeheads.backbones.base import InputScaling
from edgeheads.contract import scale_pixels
from edgeheads.data.augment import augment
from edgeheads.data.images import resize_rgb
from edgeheads.data.sample import LabelNames, Sample
from edgeheads.tasks.base import Array, Task

__all__ = ["Batches", "TrainingBatches"]


class Batches(keras.utils.PyDataset, ABC):
    """Batches that a training can be taken up in the middle of; batch i is always the same."""

    def __init__(self) -> None:
        super().__init__(workers=1, use_multiprocessing=False)

    @abstractmethod
    def window(self, first: int, steps: int) -> Batches:
        """Return `steps` of these batches, from the one at `first` on."""

    @property
    @abstractmethod
    def num_batches(self) -> int:
        """How many batches there are."""

    @property
    @abstractmethod
    def num_samples(self) -> int:
        """How many samples they are made of."""

    @abstractmethod
    def __getitem__(self, index: int) -> tuple[Array, dict[str, Any]]:
        """Return batch `index`: network input [B, H, W, 3], and what the loss takes as targets."""


class TrainingBatches(Batches):
    """An endless stream of training batches, cut into `steps`; batch i is always the same.

    Each pass over the samples has an order of its own.

    Args:
        samples: read and checked already.
        task: encodes the labels.
        size: (height, width) of the network's input.
        scaling: of the network's input.
        decoding: of the model, see `Task.edge_outputs`; some targets depend on it.
        names: of the labels; a mirror swaps some of them.
        steps: how many batches there are.
        batch_size: samples a batch.
        augmentations: names from `data.augment.AUGMENTATIONS`.
        seed: of order and augmentation.
    """

    def __init__(
        self,
        samples: list[Sample],
        task: Task,
        *,
        size: tuple[int, int],
        scaling: InputScaling,
        decoding: Mapping[str, Any],
        names: LabelNames,
        steps: int,
        batch_size: int,
        augmentations: tuple[str, ...],
        seed: int,
    ) -> None:
        super().__init__()
        self._samples = samples
        self._task = task
        self._size = size
        self._scaling = scaling
        self._decoding = decoding
        self._names = names
        self._steps = steps
        self._batch_size = batch_size
        self._augmentations = augmentations
        self._seed = seed
        self._first = 0

    def window(self, first: int, steps: int) -> TrainingBatches:
        """See `Batches.window`."""
        window = copy.copy(self)
        window._first = self._first + first
        window._steps = steps
        return window

    @property
    def num_batches(self) -> int:
        """See `Batches.num_batches`."""
        return self._steps

    @property
    def num_samples(self) -> int:
        """See `Batches.num_samples`."""
        return len(self._samples)

    def __getitem__(self, index: int) -> tuple[Array, dict[str, Array]]:
        """Return batch `index`: network input [B, H, W, 3], and the task's targets."""
        images, targets = [], []
        first = (self._first + index) * self._batch_size
        for position in range(first, first + self._batch_size):
            sample = self._sample(position)
            images.append(
                scale_pixels(
                    resize_rgb(sample.image, self._size), self._scaling.scale, self._scaling.offset
                )
            )
            targets.append(self._task.target(sample, self._size, self._decoding))
        return np.stack(images), {
            name: np.stack([target[name] for target in targets]) for name in targets[0]
        }

    def _sample(self, position: int) -> Sample:
        rounds, place = divmod(position, len(self._samples))
        order = np.random.default_rng((self._seed, rounds)).permutation(len(self._samples))
        rng: Any = np.random.default_rng((self._seed, rounds, place))

        def other() -> Sample:
            return self._samples[rng.integers(len(self._samples))]

        return augment(self._samples[order[place]], self._augmentations, rng, self._names, other)
