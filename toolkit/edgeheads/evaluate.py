"""Scoring predictions in a task's metrics: the same code for a Bundle and for a Keras model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeheads.bundle import Bundle
from edgeheads.data.images import resize_rgb
from edgeheads.data.sample import Sample, SampleSource
from edgeheads.data.sources import open_source
from edgeheads.errors import CheckFailedError
from edgeheads.progress import Progress, SilentProgress
from edgeheads.runtime import DeviceSession
from edgeheads.tasks import get_task
from edgeheads.tasks.base import Prediction, Task

__all__ = ["Predictor", "bundle_predictor", "evaluate", "score"]

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
    task = get_task(bundle.task)
    source = open_source(data, "test", size=bundle.contract.image.size, seed=bundle.recipe["seed"])
    scores = score(
        task,
        bundle.contract.decoding,
        source,
        bundle_predictor(bundle, session),
        bundle.contract.image.size,
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


def bundle_predictor(bundle: Bundle, session: DeviceSession) -> Predictor:
    """Return a predictor that runs the Bundle's file on the device."""
    task, contract = get_task(bundle.task), bundle.contract

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
    progress: Progress | None = None,
    title: str = "Evaluating",
) -> dict[str, Any]:
    """Return {"metrics", "counts", "ranges"} of a predictor on every sample of a source."""
    evaluator = task.evaluator(decoding)
    with (progress or SilentProgress()).step(title, len(source)) as step:
        for samples in _chunks(source):
            for sample in samples:
                task.check(sample)
            predictions = predict([resize_rgb(sample.image, size) for sample in samples])
            for prediction, sample in zip(predictions, samples, strict=True):
                evaluator.update(prediction, sample)
            step.advance(len(samples))
    return evaluator.result()


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
    for sample in source:
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


def _chunks(source: SampleSource) -> Iterator[list[Sample]]:
    samples = iter(source)
    while chunk := list(islice(samples, _CHUNK)):
        yield chunk
