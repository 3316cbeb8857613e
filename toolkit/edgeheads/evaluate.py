"""Scoring predictions in a task's metrics: the same code for a Bundle and for a Keras model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeheads.bundle import Bundle
from edgeheads.data.images import resize_rgb
from edgeheads.data.reading import Skipped, read_samples
from edgeheads.data.sample import SampleSource
from edgeheads.data.sources import open_source
from edgeheads.errors import (
    CheckFailedError,
    EdgeheadsError,
    MissingDependencyError,
    RuntimeFailureError,
)
from edgeheads.measurements import HOST, device_label, measurement_name, require_verified_file
from edgeheads.predictions import DataDigest, PredictionStore, open_store
from edgeheads.progress import Progress, SilentProgress
from edgeheads.runtime import DeviceSession
from edgeheads.tasks import get_task
from edgeheads.tasks.base import Metric, Prediction, Task
from edgeheads.verify import golden_repeats

__all__ = [
    "Predictor",
    "bundle_predictor",
    "bundle_task",
    "evaluate",
    "keep_float_scores",
    "require_small_drop",
    "score",
    "score_baseline",
]

# Images [H, W, 3] of the model's size -> one prediction each.
Predictor = Callable[[Sequence[NDArray[np.uint8]]], list[Prediction]]

# What lies on a device at a time: so many images, and so many bytes of inputs and outputs.
_CHUNK = 32
_CHUNK_BYTES = 16 << 20

_FLOAT_SCORES = "float_evaluation"


def evaluate(
    bundle: Bundle,
    session: DeviceSession,
    *,
    data: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    resume: bool = False,
    on_host: bool = True,
    require_golden: bool = True,
) -> dict[str, Any]:
    """Score the Bundle's file on the device against labelled images, and store the result.

    The golden images are run first. On any device but this machine, the same images are then
    scored here, too, so that the drop between the two is known. bench/README.md lists what is
    stored, and where.

    Args:
        bundle: what to score.
        session: the device.
        data: a recipe's `data` section; default: the Bundle's own, of which the test split counts.
        progress: where to report.
        resume: keep predictions until all are there, and go on from those that were kept.
        on_host: score another device's file on this machine, too.
        require_golden: refuse a device that does not repeat the golden outputs.

    Returns:
        What evaluation.json holds for this device.

    Raises:
        CheckFailedError: the golden outputs are not repeated; or the Bundle was changed since it
            was verified.
        RuntimeFailureError: the device failed; with `resume`, nothing that was computed is lost.
    """
    require_verified_file(bundle)
    checks = golden_repeats(bundle, session)
    failed = [check for check in checks if not check.passed]
    label = device_label(session.profile)
    if failed and require_golden:
        raise CheckFailedError(
            f"{label} does not repeat the golden outputs of {bundle.folder}: {failed[0].name}: "
            f"{failed[0].detail}; try another runtime there, or score it all the same with "
            "--allow-golden-mismatch"
        )
    host = None
    if on_host and label != HOST:
        host = _host_result(bundle, data, progress, resume)
    result = _scored(bundle, session, data, progress, resume)
    golden = {"passed": not failed, "checks": [asdict(check) for check in checks]}
    result = {
        **result,
        "accuracy_stages": _stages(bundle, result, host),
        "golden": golden,
    }
    bundle.save_measurement(measurement_name("evaluation", label), result)
    return result


def keep_float_scores(bundle: Bundle, scores: Mapping[str, Any]) -> None:
    """Store what `score` returned of the float Keras model that a Bundle was made of."""
    bundle.save_measurement(_FLOAT_SCORES, {"kind": "float Keras model", **scores})


def _host_result(
    bundle: Bundle, data: Mapping[str, Any] | None, progress: Progress | None, resume: bool
) -> dict[str, Any] | None:
    """Score the file on this machine; None where it has no interpreter."""
    try:
        with DeviceSession() as host:
            # Made on another device, a file may well compute something slightly different here.
            return evaluate(
                bundle, host, data=data, progress=progress, resume=resume, require_golden=False
            )
    except MissingDependencyError:
        return None


def _scored(
    bundle: Bundle,
    session: DeviceSession,
    data: Mapping[str, Any] | None,
    progress: Progress | None,
    resume: bool,
) -> dict[str, Any]:
    data = data or bundle.recipe["data"]
    task, label = bundle_task(bundle), device_label(session.profile)
    source = open_source(data, "test", size=bundle.contract.image.size, seed=bundle.recipe["seed"])
    _require_same_labels(bundle, task.labels(source.names), data["source"])
    store = open_store(bundle, session) if resume else None
    try:
        scores = score(
            task,
            bundle.contract.decoding,
            source,
            bundle_predictor(bundle, session, store),
            bundle.contract.image.size,
            strict=data["strict"],
            progress=progress,
            title=f"Evaluating {bundle.precision}" + ("" if label == HOST else f" on {label}"),
            chunk=_chunk_images(bundle),
        )
    except RuntimeFailureError as error:
        if store is None:
            raise
        kept = store.found_images + store.kept_images
        raise RuntimeFailureError(
            f"{error}; the predictions of {kept} of {len(source)} images are kept, run the same "
            "command again to go on"
        ) from None
    result = {
        **scores,
        "baseline": score_baseline(task, bundle.contract.decoding, source, bundle.baseline),
        "protocol": task.protocol,
        "data": {**data, "split_used": "test"},
        "runtime": session.inspect(bundle.model_path)["runtime"],
        "device": session.profile.name,
        "label": label,
        "title": session.profile.title,
        "resumed_images": store.found_images if store else 0,
    }
    if store:
        store.clear()
    return result


def _stages(
    bundle: Bundle, result: Mapping[str, Any], host: Mapping[str, Any] | None
) -> list[dict[str, Any]]:
    """Return the metrics of each stage that was scored on the same data, and what it lost."""
    float_scores = bundle.read_measurement(_FLOAT_SCORES)
    is_host = result["label"] == HOST
    found = [
        ("keras-float", HOST, float_scores),
        ("tflite-host", HOST, result if is_host else host),
        ("tflite-device", result["label"], None if is_host else result),
    ]
    stages: list[dict[str, Any]] = []
    for stage, label, scores in found:
        if scores is None or scores.get("data_sha256") != result["data_sha256"]:
            continue
        metrics = dict(scores["metrics"])
        before = stages[-1]["metrics"] if stages else None
        drops = None if before is None else _drops(bundle_task(bundle).metrics, before, metrics)
        stages.append({"stage": stage, "label": label, "metrics": metrics, "drops": drops})
    return stages


def _drops(
    judged: Sequence[Metric], before: Mapping[str, float], metrics: Mapping[str, float]
) -> dict[str, float | None]:
    """Return by how much each metric is worse; None where that is no share of a zero."""
    drops = {one.name: one.drop(before[one.name], metrics[one.name]) for one in judged}
    return {name: drop if np.isfinite(drop) else None for name, drop in drops.items()}


def _chunk_images(bundle: Bundle) -> int:
    """Return how many images go to the device at a time."""
    specs = (bundle.contract.image.tensor, *bundle.contract.outputs)
    one = sum(int(np.prod(spec.shape)) * np.dtype(spec.dtype).itemsize for spec in specs)
    return max(1, min(_CHUNK, _CHUNK_BYTES // one))


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


def bundle_predictor(
    bundle: Bundle, session: DeviceSession, store: PredictionStore | None = None
) -> Predictor:
    """Return a predictor that runs the Bundle's file on the device.

    With a store, images whose outputs are in it do not go to the device again.
    """
    task, contract = bundle_task(bundle), bundle.contract

    def outputs_of(inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        kept = store.find(inputs) if store else None
        if kept is not None:
            return kept
        outputs = session.predict(bundle.model_path, inputs)
        if store:
            store.keep(inputs, outputs)
        return outputs

    def predict(images: Sequence[NDArray[np.uint8]]) -> list[Prediction]:
        inputs = np.concatenate([contract.image.prepare(image) for image in images])
        stored = outputs_of({contract.image.tensor.name: inputs})
        real = contract.dequantize(stored)
        return task.decode_each(real, contract.decoding)

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
    chunk: int = _CHUNK,
) -> dict[str, Any]:
    """Return {"metrics", "counts", "ranges", "data_sha256"} of a predictor on a whole source.

    Samples that cannot be used are counted in "counts" as samples_skipped, labels that were
    mended or left out as label_problems; with `strict` the first of either is refused.
    """
    evaluator = task.evaluator(decoding)
    skipped, digest = Skipped(), DataDigest()
    usable = read_samples(source, task.check, skipped, strict=strict)
    with (progress or SilentProgress()).step(title, len(source)) as step:
        while samples := list(islice(usable, chunk)):
            predictions = predict([resize_rgb(sample.image, size) for sample in samples])
            for prediction, sample in zip(predictions, samples, strict=True):
                evaluator.update(prediction, sample)
                digest.update(sample)
            step.advance(len(samples))
    scores = evaluator.result()
    scores["counts"]["samples_skipped"] = len(skipped)
    scores["counts"]["label_problems"] = len(skipped.problems)
    return {**scores, "data_sha256": digest.hexdigest()}


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
