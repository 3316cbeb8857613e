"""Pruning a model of ours: its recipe knows the task, the data and how to recover."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from edgeheads.bundle import write_atomically
from edgeheads.compression.graph import calls
from edgeheads.compression.prune.distill import teach
from edgeheads.compression.prune.importance import loss_gradients
from edgeheads.compression.prune.job import PruneJob, run
from edgeheads.compression.prune.meter import Exporter
from edgeheads.compression.prune.report import PruneReport
from edgeheads.data.sample import SampleSource
from edgeheads.data.sources import open_source
from edgeheads.device import DeviceProfile
from edgeheads.edge_model import EdgeModel, load
from edgeheads.errors import EdgeheadsError
from edgeheads.evaluate import score
from edgeheads.progress import Progress, SilentProgress
from edgeheads.recipe import Recipe
from edgeheads.runtime import BenchSettings, DeviceSession
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
from edgeheads.training.distribution import Distribution

__all__ = [
    "PruneResult",
    "prune_edge_model",
    "prune_with_recipe",
    "quiet_tensorflow",
    "require_other_folder",
    "save_report",
]

# The files in which a pruning is timed.
_PRECISIONS = ("float32", "int8")


@dataclass(frozen=True)
class PruneResult:
    """What a pruning made and measured.

    Attributes:
        folder: holds model.keras, pruning.json and, with a recipe, recipe.yaml.
        model_path: the pruned Keras model.
        report: what it cost and bought.
        seconds: of each stage.
        recipe: resolved; None where there is none.
    """

    folder: Path
    model_path: Path
    report: PruneReport
    seconds: dict[str, float]
    recipe: Recipe | None = None


def prune_with_recipe(
    model_file: Path,
    recipe: Recipe,
    folder: Path,
    *,
    profile: DeviceProfile | None = None,
    bench_settings: BenchSettings | None = None,
    progress: Progress | None = None,
) -> PruneResult:
    """Prune a trained model of the recipe's task, recover, measure, and save it.

    Args:
        model_file: a trained `.keras` model; it stays as it is.
        recipe: its `prune` section says what to remove, the others how to recover.
        folder: for model.keras, recipe.yaml and pruning.json, written when all is done.
        profile: where to time; default: this machine.
        bench_settings: of the measurement.
        progress: where to report.

    Raises:
        EdgeheadsError: anything in model, recipe, data or folder that cannot work, or a target
            that cannot be reached.
    """
    progress = progress or SilentProgress()
    require_other_folder(model_file, folder)
    task = get_task(recipe.task, recipe.head.options)
    set_up_backend(recipe.seed)
    quiet_tensorflow()
    prepare_folder(folder)
    watch = Stopwatch()
    test = open_source(recipe.values()["data"], "test", size=recipe.input_size, seed=recipe.seed)
    with watch.stage("read the data"):
        data = read_training_data(recipe, task, progress)
    edge = load(model_file, recipe, task, data.names)
    with watch.stage("prune, recover and time"), DeviceSession(profile) as session:
        pruned, report = prune_edge_model(
            edge, recipe, task, data, test, session, bench_settings, progress
        )
    save_model(pruned.model, recipe, model_path(folder))
    save_report(report, folder)
    return PruneResult(folder, model_path(folder), report, watch.seconds, recipe)


def prune_edge_model(
    edge: EdgeModel,
    recipe: Recipe,
    task: Task,
    data: TrainingData,
    test: SampleSource,
    session: DeviceSession,
    bench_settings: BenchSettings | None = None,
    progress: Progress | None = None,
) -> tuple[EdgeModel, PruneReport]:
    """Do what the recipe's `prune` section says with a trained model.

    Args:
        edge: the model; it is not changed.
        recipe: see `prune_with_recipe`.
        task: the recipe's.
        data: to recover on, and to calibrate with.
        test: to score on.
        session: the device that is timed on.
        bench_settings: of the measurement.
        progress: where to report.
    """
    progress = progress or SilentProgress()
    images = edge.inputs_of(data.samples[: recipe.export.calibration_samples])

    def of(model: keras.Model) -> EdgeModel:
        return edge.with_model(model, task)

    def recover(model: keras.Model, last: bool) -> None:
        pruned, tuning = of(model), _recovery(recipe, last)
        recovery = prepare_training(pruned, tuning, task, data, Distribution())
        if recipe.prune.distill:
            teach(recovery, pruned, edge, recipe.prune.distill)
        recovery.run(progress)

    def metrics(model: keras.Model) -> dict[str, float]:
        one = of(model)
        found: dict[str, float] = score(
            task,
            one.decoding,
            test,
            one.predictor(task),
            one.size,
            strict=recipe.data.strict,
            progress=progress,
        )["metrics"]
        return found

    returned = {id(tensor) for tensor in edge.outputs.values()}
    training = prepare_training(edge, _recovery(recipe, last=False), task, data, Distribution())
    batches = training.batches.window(0, recipe.prune.gradient_batches)
    job = PruneJob(
        recipe.prune,
        Exporter(lambda model: of(model).outputs, images),
        _PRECISIONS,
        tuple(
            call.layer.name
            for call in calls(edge.model)
            if any(id(tensor) in returned for tensor in call.outputs)
        ),
        loss_gradients(training.loss, [batches[i] for i in range(recipe.prune.gradient_batches)])
        if recipe.prune.importance == "taylor"
        else None,
        recover,
        metrics,
    )
    model, report = run(edge.model, job, session, progress, bench_settings)
    return of(model), report


def save_report(report: PruneReport, folder: Path) -> None:
    """Write pruning.json."""
    write_atomically(folder / "pruning.json", json.dumps(report.as_json(), indent=2) + "\n")


def quiet_tensorflow() -> None:
    """Keep TensorFlow from warning that several models are each traced once."""
    logging.getLogger("tensorflow").setLevel(logging.ERROR)


def require_other_folder(model_file: Path, folder: Path) -> None:
    """Raise EdgeheadsError where the result would replace the model that is pruned."""
    if model_path(folder).resolve() == model_file.resolve():
        raise EdgeheadsError(
            f"--out {folder} would replace the model that is pruned; choose another folder"
        )


def _recovery(recipe: Recipe, last: bool) -> Recipe:
    """Return the recipe of a recovery.

    It trains the pruned graph itself: what makes a second graph from the recipe (another
    precision, averages, recomputing) would make an unpruned one.
    """
    changes: dict[str, Any] = {
        "training.steps": recipe.prune.recover_steps,
        "training.learning_rate": recipe.training.learning_rate * recipe.prune.recover_rate,
        "training.frozen_fraction": 0.0,
        "training.precision": "float32",
        "training.ema_decay": 0.0,
        "training.recompute": False,
        "prune.target": None,
    }
    if not last:
        changes["prune.sparsity"] = 0.0
    return recipe.with_values(**changes)
