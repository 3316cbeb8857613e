"""Scoring predictions in a task's metrics: the same code for a Bundle and for a Keras model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeheads.bundle import Bundle
from edgeheads.data.images import resize_rgb
from edgeheads.data.reading import Skipped, read_samples
from edgeheads.data.sample import SampleSource
from edgeheads.data.sources import open_source
from edgeheads.errors import CheckFailedError, EdgeheadsError
from edgeheads.progress import Progress, SilentProgress
from edgeheads.runtime import DeviceSession
from edgeheads.tasks import get_task
from edgeheads.tasks.base import Prediction, Task

__all__ = [
    "Predictor",
    "bundle_predictor",
    "bundle_task",
    "evaluate",
    "require_small_drop",
    "score",
    "score_baseline",
]

# Images [H, W, 3] of the model's size -> one prediction each.
Predictor = Callable[[Sequence[NDArray[np.uint8]]], list[Prediction]]

# Bounds what lies on the device's disk at a time.
_CHUNK = 32


def evaluate(
    bundle: Bundle,
    session: DeviceSession,
    *,
    data: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Score the Bundle's file on the device against labelled images, and store evaluation.json.

    Args:
        bundle: what to score.
        session: the device.
        data: a recipe's `data` section; default: the Bundle's own, of which the test split counts.
        progress: where to report.

    Returns:
        What evaluation.json holds: "metrics", "baseline" (the trivial predictor's metrics, or
        None), "counts", "ranges", "protocol", "data", "runtime", "device".
    """
    data = data or bundle.recipe["data"]
    task = bundle_task(bundle)
    source = open_source(data, "test", size=bundle.contract.image.size, seed=bundle.recipe["seed"])
    _require_same_labels(bundle, task.labels(source.names), data["source"])
    scores = score(
        task,
        bundle.contract.decoding,
        source,
        bundle_predictor(bundle, session),
        bundle.contract.image.size,
        strict=data["strict"],
        progress=progress,
        title=f"Evaluating {bundle.precision}",
    )
    result = {
        **scores,
        "baseline": score_baseline(task, bundle.contract.decoding, source, bundle.baseline),
        "protocol": task.protocol,
        "data": {**data, "split_used": "test"},
        "runtime": session.inspect(bundle.model_path)["runtime"],
        "device": session.profile.name,
    }
    bundle.save_measurement("evaluation", result)
    return result


def bundle_task(bundle: Bundle) -> Task:
    """Return the room of a Bundle's task."""
    return get_task(bundle.task, bundle.recipe["head"]["options"])


def _require_same_labels(bundle: Bundle, labels: tuple[str, ...], source: str) -> None:
    """Refuse data in which class 3 is another thing than in the model."""
    if labels != bundle.contract.labels:
        raise EdgeheadsError(
            f"the labels of {source} are {', '.join(labels) or 'none'}, those of {bundle.folder} "
            f"are {', '.join(bundle.contract.labels) or 'none'}; evaluate on data with the same "
            "class names"
        )


def bundle_predictor(bundle: Bundle, session: DeviceSession) -> Predictor:
    """Return a predictor that runs the Bundle's file on the device."""
    task, contract = bundle_task(bundle), bundle.contract

    def predict(images: Sequence[NDArray[np.uint8]]) -> list[Prediction]:
        inputs = np.concatenate([contract.image.prepare(image) for image in images])
        stored = session.predict(bundle.model_path, {contract.image.tensor.name: inputs})
        real = contract.dequantize(stored)
        return [
            task.decode({name: array[i : i + 1] for name, array in real.items()}, contract.decoding)
            for i in range(len(images))
        ]

    return predict


def score(
    task: Task,
    decoding: Mapping[str, Any],
    source: SampleSource,
    predict: Predictor,
    size: tuple[int, int],
    *,
    strict: bool = False,
    progress: Progress | None = None,
    title: str = "Evaluating",
) -> dict[str, Any]:
    """Return {"metrics", "counts", "ranges"} of a predictor on every sample of a source.

    Samples that cannot be used are counted in "counts" as samples_skipped, labels that were
    mended or left out as label_problems; with `strict` the first of either is refused.
    """
    evaluator = task.evaluator(decoding)
    skipped = Skipped()
    usable = read_samples(source, task.check, skipped, strict=strict)
    with (progress or SilentProgress()).step(title, len(source)) as step:
        while samples := list(islice(usable, _CHUNK)):
            predictions = predict([resize_rgb(sample.image, size) for sample in samples])
            for prediction, sample in zip(predictions, samples, strict=True):
                evaluator.update(prediction, sample)
            step.advance(len(samples))
    scores = evaluator.result()
    scores["counts"]["samples_skipped"] = len(skipped)
    scores["counts"]["label_problems"] = len(skipped.problems)
    return scores


def score_baseline(
    task: Task,
    decoding: Mapping[str, Any],
    source: SampleSource,
    baseline: Mapping[str, Any] | None,
) -> dict[str, Any] | None:
    """Return the metrics of the trivial predictor on the same samples."""
    if baseline is None:
        return None
    evaluator = task.evaluator(decoding)
    for sample in read_samples(source, task.check, Skipped()):
        evaluator.update(task.predict_baseline(baseline, sample.image.shape[:2]), sample)
    return {"kind": baseline["kind"], "metrics": evaluator.result()["metrics"]}


def require_small_drop(
    task: Task, reference: Mapping[str, float], metrics: Mapping[str, float]
) -> None:
    """Raise CheckFailedError where a metric is worse than its task allows against `reference`."""
    for metric in task.metrics:
        if metric.allowed_drop is None:
            continue
        drop = metric.drop(reference[metric.name], metrics[metric.name])
        if drop > metric.allowed_drop:
            kind = "relative" if metric.drop_is_relative else "absolute"
            raise CheckFailedError(
                f"{metric.title} is {drop:.4f} ({kind}) worse than the float model's, "
                f"{metrics[metric.name]:.4f} against {reference[metric.name]:.4f}, "
                f"{metric.allowed_drop} is allowed; raise export.calibration_samples, "
                "or train longer"
            )
