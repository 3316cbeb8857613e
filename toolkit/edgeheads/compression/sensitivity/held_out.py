"""The task metric of a file, on samples that neither trained nor test the model."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeheads.contract import Contract, ImageInput
from edgeheads.data.reading import Skipped, read_samples
from edgeheads.data.sample import Sample
from edgeheads.data.sources import open_source
from edgeheads.data.synthetic import RENDERED
from edgeheads.edge_model import EdgeModel
from edgeheads.errors import EdgeheadsError
from edgeheads.evaluate import Predictor
from edgeheads.recipe import Recipe
from edgeheads.runtime import DeviceSession
from edgeheads.tasks.base import Array, Metric, Prediction, Task
from edgeheads.training.validation import judged_metric, split_samples
from edgeheads.verify import tensor_spec

__all__ = ["HeldOut", "held_out_samples"]


def held_out_samples(
    recipe: Recipe, task: Task, training: Sequence[Sample], count: int
) -> list[Sample]:
    """Return up to `count` samples, of the network's size, that the model was not trained on.

    Rendered scenes come from another seed; of a folder, they are its validation split.

    Raises:
        EdgeheadsError: the recipe holds none back.
    """
    if recipe.data.source in RENDERED:
        data = {**recipe.values()["data"], "train_samples": count}
        source = open_source(data, "train", size=recipe.input_size, seed=recipe.seed + 1)
        return list(read_samples(source, task.check, Skipped()))
    held_back = split_samples(list(training), recipe.training.validation_fraction)[1]
    if not held_back:
        raise EdgeheadsError(
            "the metric needs samples that the model was not trained on, and the recipe's "
            "training.validation_fraction is 0; train with 0.1, or leave the metric out"
        )
    return held_back[:count]


@dataclass
class HeldOut:
    """Scores files against the float Keras model.

    Attributes:
        edge: the model.
        task: scores it.
        samples: of `held_out_samples`.
        session: runs the files.
    """

    edge: EdgeModel
    task: Task
    samples: Sequence[Sample]
    session: DeviceSession

    def __post_init__(self) -> None:
        self.metric: Metric = judged_metric(self.task)
        self.reference = self._value(self.edge.predictor(self.task))

    def drop_of(self, content: bytes) -> float:
        """Return by how much a file's metric is worse, in the metric's own unit or share."""
        return self.metric.drop(self.reference, self.value_of(content))

    def value_of(self, content: bytes) -> float:
        """Return a file's metric."""
        with tempfile.TemporaryDirectory(prefix="edgeheads-") as folder:
            path = Path(folder, "model.tflite")
            path.write_bytes(content)
            return self._value(self._file_predictor(path))

    def outputs_of(self, content: bytes) -> dict[str, Array]:
        """Return the real values [N, ...] that a file computes of all samples."""
        with tempfile.TemporaryDirectory(prefix="edgeheads-") as folder:
            path = Path(folder, "model.tflite")
            path.write_bytes(content)
            images = [sample.image for sample in self.samples]
            return self._outputs(path, self._contract(path), images)

    def budget(self, max_drop: float) -> float:
        """Return a budget in the unit of `drop_of`.

        Args:
            max_drop: in points (hundredths) of a metric without a unit, in percent where the
                metric's drop is relative, else in the metric's unit.

        Raises:
            EdgeheadsError: the float model's metric is the worst that there is, or no number: no
                file could drop further, and any budget would be held.
        """
        worst = self.metric.low if self.metric.higher_is_better else self.metric.high
        if self.reference == worst or not math.isfinite(self.reference):
            raise EdgeheadsError(
                f"the float model scores {self.reference:g} ({self.metric.title}) on the samples "
                f"held out of training ({len(self.samples)}), so no drop can be judged; train it "
                "longer, or leave the budget out"
            )
        in_hundredths = self.metric.drop_is_relative or not self.metric.unit
        return max_drop / 100 if in_hundredths else max_drop

    def metric_of(self, predictions: Sequence[Prediction], samples: Sequence[Sample]) -> float:
        """Return the metric of predictions, one for each of the samples."""
        evaluator = self.task.evaluator(self.edge.decoding)
        for prediction, sample in zip(predictions, samples, strict=True):
            evaluator.update(prediction, sample)
        return float(evaluator.result()["metrics"][self.metric.name])

    def _value(self, predict: Predictor) -> float:
        return self.metric_of(predict([sample.image for sample in self.samples]), self.samples)

    def _contract(self, path: Path) -> Contract:
        facts = self.session.inspect(path)
        [image] = facts["inputs"]
        return Contract(
            ImageInput(tensor_spec(image), self.edge.scaling.scale, self.edge.scaling.offset),
            tuple(tensor_spec(output) for output in facts["outputs"]),
            self.edge.decoding,
            self.edge.labels,
        )

    def _outputs(
        self, path: Path, contract: Contract, images: Sequence[NDArray[np.uint8]]
    ) -> dict[str, Array]:
        inputs = np.concatenate([contract.image.prepare(one) for one in images])
        stored = self.session.predict(path, {contract.image.tensor.name: inputs})
        return contract.dequantize(stored)

    def _file_predictor(self, path: Path) -> Predictor:
        contract = self._contract(path)

        def predict(images: Sequence[NDArray[np.uint8]]) -> list[Prediction]:
            return self.task.decode_each(self._outputs(path, contract, images), contract.decoding)

        return predict
