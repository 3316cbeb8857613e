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
from edgeheads.compression.prune.magnitude import MagnitudePruning, PolynomialSchedule
from edgeheads.data.reading import Skipped, read_samples
from edgeheads.data.resize import resize_sample
from edgeheads.data.sample import LabelNames, Sample
from edgeheads.data.sources import open_source
from edgeheads.data.synthetic import RENDERED
from edgeheads.edge_model import EdgeModel, build
from edgeheads.errors import EdgeheadsError
from edgeheads.progress import Progress
from edgeheads.recipe import Recipe, recipe_to_yaml
from edgeheads.tasks.base import Task
from edgeheads.training.batches import TrainingBatches
from edgeheads.training.distribution import Distribution
from edgeheads.training.fit import Training
from edgeheads.training.optimizer import Optimization
from edgeheads.training.trainee import make_trainee
from edgeheads.training.validation import Validator, split_samples, validation_steps

__all__ = [
    "Stopwatch",
    "TrainingData",
    "model_path",
    "open_training_data",
    "prepare_folder",
    "prepare_training",
    "read_training_data",
    "save_model",
    "set_up_backend",
    "train",
]

# Shares of the steps between which weights become zero; the rest are to recover in.
_SPARSE_BEGIN, _SPARSE_END = 0.1, 0.6


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
    skipped = Skipped()
    names, samples = open_training_data(recipe, task, skipped, progress)
    return TrainingData(list(samples), names, skipped)


def open_training_data(
    recipe: Recipe, task: Task, skipped: Skipped, progress: Progress
) -> tuple[LabelNames, Iterator[Sample]]:
    """Return the names of the labels, and the samples of `read_training_data` one by one.

    `skipped` is told of what is left out as it is come by.

    Raises:
        EdgeheadsError: see `open_source`; see `read_samples` for the samples.
    """
    data = recipe.values()["data"]
    source = open_source(data, "train", size=recipe.input_size, seed=recipe.seed)
    title = "Rendering scenes" if recipe.data.source in RENDERED else "Reading images"

    def samples() -> Iterator[Sample]:
        with progress.step(title, len(source)) as step:
            for sample in read_samples(source, task.check, skipped, strict=recipe.data.strict):
                step.advance()
                yield resize_sample(sample, recipe.input_size)

    return source.names, samples()


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
        EdgeheadsError: see `build` and `Training`.
    """
    edge = build(recipe, task, data.names)
    training = prepare_training(edge, recipe, task, data, Distribution())
    training.run(progress)
    save_model(edge.model, recipe, model_path(folder))
    return edge


def prepare_training(
    edge: EdgeModel, recipe: Recipe, task: Task, data: TrainingData, distribution: Distribution
) -> Training:
    """Return the recipe's training of a model that was built from it, ready to run.

    Args:
        edge: the wanted model.
        recipe: how to train it.
        task: the recipe's.
        data: what to train on.
        distribution: over devices.

    Raises:
        EdgeheadsError: options that do not fit the data or the task.
    """
    options = recipe.training
    samples, held_back = split_samples(data.samples, options.validation_fraction)
    batches = TrainingBatches(
        samples,
        task,
        size=recipe.input_size,
        scaling=edge.scaling,
        decoding=edge.decoding,
        names=data.names,
        steps=options.steps,
        batch_size=options.batch_size,
        augmentations=task.augmentations if options.augment else (),
        seed=recipe.seed,
    )
    trainee = make_trainee(edge, recipe, task, data.names, distribution)
    pruning = _magnitude_pruning(trainee.flat, recipe)
    validator = Validator(
        edge,
        task,
        held_back,
        data.names,
        # The best weights are to be sparse ones.
        steps=frozenset(
            step
            for step in validation_steps(options.steps, options.validations)
            if not pruning or step >= pruning.schedule.end
        ),
        patience=options.patience,
    )
    if options.task_weights is not None and not task.parts():
        raise EdgeheadsError(
            f"training.task_weights is for several tasks in one, and {task.type.value!r} is a "
            "single one; leave it out of the recipe"
        )
    with distribution.building():
        loss = task.training_loss(data.names, samples, options.task_weights)
    return Training(
        edge.model,
        trainee.flat,
        batches,
        loss,
        _optimization(recipe),
        backbone=trainee.backbone,
        called=trainee.called,
        distribution=distribution,
        validator=validator if held_back else None,
        pruning=pruning,
    )


def _optimization(recipe: Recipe) -> Optimization:
    options = recipe.training
    return Optimization(
        learning_rate=options.learning_rate,
        weight_decay=options.weight_decay,
        warmup_fraction=options.warmup_fraction,
        backbone_rate=options.backbone_rate,
        clip_norm=options.clip_norm,
        ema_decay=options.ema_decay,
        # A network that starts from noise has nothing to keep.
        frozen_fraction=options.frozen_fraction if recipe.backbone.weights else 0.0,
        scale_loss=options.precision == "mixed_float16",
    )


def _magnitude_pruning(model: keras.Model, recipe: Recipe) -> MagnitudePruning | None:
    """Return what sets weights to zero in this training: fewer channels come first."""
    if not recipe.prune.sparsity or recipe.prune.target is not None:
        return None
    steps = recipe.training.steps
    schedule = PolynomialSchedule(
        recipe.prune.sparsity,
        begin=round(_SPARSE_BEGIN * steps),
        end=max(1, round(_SPARSE_END * steps)),
        every=max(1, steps // 100),
    )
    return MagnitudePruning(model, schedule, recipe.prune.pattern)


def save_model(model: keras.Model, recipe: Recipe, path: Path) -> None:
    """Save a model, whole or not at all, and the recipe beside it."""
    draft = path.with_name(".model-draft.keras")
    try:
        model.save(draft)
        draft.replace(path)
        write_atomically(path.with_name("recipe.yaml"), recipe_to_yaml(recipe))
    finally:
        draft.unlink(missing_ok=True)


def model_path(folder: Path) -> Path:
    """Where `train` saves the model."""
    return folder / "model.keras"
