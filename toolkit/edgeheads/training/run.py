"""A whole training with checkpoints and logs, scored at its end: what `edgeheads train` does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from edgeheads.bundle import write_atomically
from edgeheads.data.sources import open_source
from edgeheads.edge_model import build
from edgeheads.errors import EdgeheadsError
from edgeheads.evaluate import score
from edgeheads.progress import Progress, SilentProgress
from edgeheads.recipe import Recipe, recipe_to_yaml
from edgeheads.tasks import get_task
from edgeheads.tasks.base import Task
from edgeheads.train import (
    Stopwatch,
    TrainingData,
    model_path,
    prepare_folder,
    prepare_training,
    read_training_data,
    save_model,
    set_up_backend,
)
from edgeheads.training.checkpoint import Checkpoint, fingerprint
from edgeheads.training.distribution import Distribution, distribute
from edgeheads.training.fit import Training
from edgeheads.training.history import History, write_csv, write_curves
from edgeheads.training.optimizer import Phase
from edgeheads.training.tensorboard import TensorBoard
from edgeheads.training.validation import judged_metric

__all__ = ["RunOptions", "TrainResult", "train_and_log"]


@dataclass(frozen=True)
class RunOptions:
    """How a training is run; none of it changes the result.

    Attributes:
        resume: go on from the folder's checkpoint.
        checkpoint_seconds: how often the checkpoint is written.
        tensorboard: write logs for TensorBoard, too.
        distribute: use all devices, or the workers of TF_CONFIG.
    """

    resume: bool = False
    checkpoint_seconds: float = 60.0
    tensorboard: bool = False
    distribute: bool = False


@dataclass
class TrainResult:
    """What a training made and measured.

    Attributes:
        recipe: resolved.
        folder: where everything is.
        model_path: the Keras model.
        parameters: its weights, counted.
        history: losses, and the metrics on the validation split.
        phases: the stretches of the training.
        samples: trained on; then: validated on.
        scores: "metrics", "counts", "ranges" of the saved model on the test set.
        seconds_per_step: the median of the steps that this process took; 0 for a single step.
        images_per_second: through training, all devices together.
        devices: what the training ran on.
        chief: this process is the one that wrote the files.
        seconds: of each stage.
        skipped: why training samples were left out, a text each.
    """

    recipe: Recipe
    folder: Path
    model_path: Path
    parameters: int
    history: History
    phases: tuple[Phase, ...]
    samples: tuple[int, int]
    scores: dict[str, Any]
    seconds_per_step: float
    images_per_second: float
    devices: str
    chief: bool
    seconds: dict[str, float]
    skipped: list[str]


def train_and_log(
    recipe: Recipe,
    folder: Path,
    options: RunOptions | None = None,
    progress: Progress | None = None,
) -> TrainResult:
    """Train the recipe's model with checkpoints and logs, and score it on the test split.

    The folder gets model.keras, recipe.yaml, training.csv and curves.png; while the training is
    unfinished, checkpoint/ holds its state.

    Args:
        recipe: what to build and how to train it.
        folder: for the results.
        options: how to run it.
        progress: where to report.

    Raises:
        EdgeheadsError: anything in the recipe, data, weights, folder or checkpoint that cannot
            work.
        KeyboardInterrupt: the user stopped; the checkpoint was written.
    """
    options, progress = options or RunOptions(), progress or SilentProgress()
    task = get_task(recipe.task, recipe.head.options)
    # Some of TensorFlow's ways to distribute must be chosen before anything else is done.
    distribution = distribute() if options.distribute else Distribution()
    distribution.check(recipe.training.batch_size, recipe.training.clip_norm)
    set_up_backend(recipe.seed)
    prepare_folder(folder)
    watch = Stopwatch()
    test = open_source(recipe.values()["data"], "test", size=recipe.input_size, seed=recipe.seed)
    with watch.stage("read the data"):
        data = read_training_data(recipe, task, progress)
    with watch.stage("train"):
        edge = build(recipe, task, data.names)
        training = prepare_training(edge, recipe, task, data, distribution)
        _run(training, recipe, task, data, folder, options, progress)
    with watch.stage("evaluate"):
        scores = score(
            task,
            edge.decoding,
            test,
            edge.predictor(task),
            edge.size,
            strict=recipe.data.strict,
            progress=progress,
        )
    step = training.seconds_per_step
    validated = len(data.samples) - training.batches.num_samples
    return TrainResult(
        recipe,
        folder,
        model_path(folder),
        edge.model.count_params(),
        training.history,
        training.phases,
        (training.batches.num_samples, validated),
        scores,
        seconds_per_step=step,
        images_per_second=recipe.training.batch_size / step if step else 0.0,
        devices=distribution.title,
        chief=distribution.chief,
        seconds=watch.seconds,
        skipped=list(data.skipped.reasons),
    )


def _run(
    training: Training,
    recipe: Recipe,
    task: Task,
    data: TrainingData,
    folder: Path,
    options: RunOptions,
    progress: Progress,
) -> None:
    """Run a training to its end, and fill the folder where this process is the one that does."""
    chief = training.distribution.chief
    checkpoint = _checkpoint(recipe, data, folder, options)
    log = _logger(training, task, folder, options.tensorboard)
    if chief:
        training.checkpoint = checkpoint
        training.checkpoint_seconds = options.checkpoint_seconds
        training.log = log
    training.run(progress, resume=checkpoint if options.resume else None)
    if chief:
        save_model(training.model, recipe, model_path(folder))
        log(training.history)
        checkpoint.remove()


def _checkpoint(
    recipe: Recipe, data: TrainingData, folder: Path, options: RunOptions
) -> Checkpoint:
    """Return the folder's checkpoint, where it may be used."""
    values = recipe.values()
    # What is done with the model afterwards does not matter to its training.
    run = {name: value for name, value in values.items() if name not in ("name", "export")}
    run["data_read"] = fingerprint(data.samples)
    run["backend"] = keras.backend.backend()
    checkpoint = Checkpoint(folder, run)
    if checkpoint.exists and not options.resume:
        raise EdgeheadsError(
            f"{checkpoint.folder} holds an unfinished training; go on with --resume, delete it, "
            "or choose another folder with --out"
        )
    if not options.resume:
        checkpoint.folder.mkdir(exist_ok=True)
        write_atomically(checkpoint.folder / "recipe.yaml", recipe_to_yaml(recipe))
    return checkpoint


def _logger(
    training: Training, task: Task, folder: Path, tensorboard: bool
) -> Callable[[History], None]:
    board = TensorBoard(folder / "tensorboard") if tensorboard else None
    steps = training.batches.num_batches

    def log(history: History) -> None:
        write_csv(history, steps, training.learning_rate, folder / "training.csv")
        write_curves(history, steps, judged_metric(task), folder / "curves.png")
        if board:
            board.write(history.rows(steps))

    return log
