"""From a recipe to a trained Keras model."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import keras

from edgeheads.bundle import write_atomically
from edgeheads.data.reading import Skipped, read_samples
from edgeheads.data.resize import resize_sample
from edgeheads.data.sample import LabelNames, Sample
from edgeheads.data.sources import open_source
from edgeheads.edge_model import EdgeModel, build
from edgeheads.errors import EdgeheadsError
from edgeheads.progress import Progress
from edgeheads.recipe import Recipe, recipe_to_yaml
from edgeheads.tasks.base import Task
from edgeheads.training.batches import TrainingBatches
from edgeheads.training.fit import fit

__all__ = [
    "Stopwatch",
    "TrainingData",
    "model_path",
    "prepare_folder",
    "read_training_data",
    "set_up_backend",
    "train",
]


@dataclass
class Stopwatch:
    """How long the stages of a run took.

    Attributes:
        seconds: {stage: seconds}.
    """

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time of the block to a stage."""
        started = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started


@dataclass(frozen=True)
class TrainingData:
    """The samples of the training split, at the network's size, and what was left out of it."""

    samples: list[Sample]
    names: LabelNames
    skipped: Skipped


def set_up_backend(seed: int) -> None:
    """The same recipe gives the same file, bit for bit, on the same machine and versions."""
    keras.utils.set_random_seed(seed)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
        # Rewriting the training graph takes longer than a short training gains from it.
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})


def prepare_folder(folder: Path) -> None:
    """Fail now, not after training, where nothing can be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise EdgeheadsError(
            f"cannot write to {folder} ({error.strerror or error}); "
            "choose another folder with --out"
        ) from None


def read_training_data(recipe: Recipe, task: Task, progress: Progress) -> TrainingData:
    """Read and check every training sample once, at the network's size, to bound the memory.

    Raises:
        EdgeheadsError: see `open_source` and `read_samples`.
    """
    data = recipe.values()["data"]
    source = open_source(data, "train", size=recipe.input_size, seed=recipe.seed)
    title = "Rendering scenes" if recipe.data.source == "synthetic" else "Reading images"
    skipped = Skipped()
    samples = []
    with progress.step(title, len(source)) as step:
        for sample in read_samples(source, task.check, skipped, strict=recipe.data.strict):
            samples.append(resize_sample(sample, recipe.input_size))
            step.advance()
    return TrainingData(samples, source.names, skipped)


def train(
    recipe: Recipe, task: Task, data: TrainingData, folder: Path, progress: Progress
) -> EdgeModel:
    """Build and train the recipe's model, and save it.

    Args:
        recipe: what to build and how to train it.
        task: the recipe's.
        data: what to train on.
        folder: for model.keras and recipe.yaml.
        progress: where to report.

    Raises:
        EdgeheadsError: see `build` and `fit`.
    """
    edge = build(recipe, task, data.names)
    training = recipe.training
    batches = TrainingBatches(
        data.samples,
        task,
        size=recipe.input_size,
        scaling=edge.scaling,
        decoding=edge.decoding,
        names=data.names,
        steps=training.steps,
        batch_size=training.batch_size,
        augmentations=task.augmentations if training.augment else (),
        seed=recipe.seed,
    )
    fit(
        edge.model,
        batches,
        task.training_loss(data.names, data.samples),
        learning_rate=training.learning_rate,
        weight_decay=training.weight_decay,
        warmup_fraction=training.warmup_fraction,
        progress=progress,
    )
    _save(edge.model, recipe, folder)
    return edge


def _save(model: keras.Model, recipe: Recipe, folder: Path) -> None:
    path = model_path(folder)
    draft = path.with_name(".model-draft.keras")
    try:
        model.save(draft)
        draft.replace(path)
        write_atomically(folder / "recipe.yaml", recipe_to_yaml(recipe))
    finally:
        draft.unlink(missing_ok=True)


def model_path(folder: Path) -> Path:
    """Where `train` saves the model."""
    return folder / "model.keras"
