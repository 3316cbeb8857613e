"""The main job: from a recipe, or a trained model, to proved Bundles."""

from __future__ import annotations

import platform
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from edgeheads.backbones.base import InputScaling
from edgeheads.bench.latency import compare
from edgeheads.bundle import Bundle, BundleContent, write_bundle
from edgeheads.compression.prune.report import PruneReport
from edgeheads.compression.prune.run import prune_edge_model, save_report
from edgeheads.compression.quantize.bare_data import read_bare_data
from edgeheads.compression.quantize.calibration import Images
from edgeheads.compression.quantize.doctor import (
    DoctorReport,
    diagnose_images,
    diagnose_model,
)
from edgeheads.compression.quantize.inputs import CalibrationInputs, inputs_of_samples
from edgeheads.compression.quantize.mixed import MixedResult, mixed_precision
from edgeheads.compression.quantize.qat_run import QatReport, TrainedForInt8, train_for_int8
from edgeheads.compression.quantize.schemes import get_scheme
from edgeheads.compression.sensitivity.held_out import HeldOut, held_out_samples
from edgeheads.contract import Contract, ImageInput
from edgeheads.data.sample import Sample
from edgeheads.data.sources import open_source
from edgeheads.device import DeviceProfile
from edgeheads.edge_model import EdgeModel, load
from edgeheads.errors import EdgeheadsError
from edgeheads.evaluate import evaluate, keep_float_scores, score, score_baseline
from edgeheads.export.compact import compact
from edgeheads.export.fast_int8 import named_speed
from edgeheads.export.tflite import convert_to_float_tflite, convert_to_tflite
from edgeheads.measurements import device_label, measurement_name
from edgeheads.progress import Progress, SilentProgress
from edgeheads.recipe import Recipe, recipe_to_yaml
from edgeheads.runtime import BenchSettings, DeviceSession
from edgeheads.tasks import get_task
from edgeheads.tasks.base import Task
from edgeheads.train import (
    Stopwatch,
    TrainingData,
    model_path,
    prepare_folder,
    read_training_data,
    save_model,
    set_up_backend,
    train,
)
from edgeheads.verify import Check, tensor_spec, verify

__all__ = ["ConvertResult", "bench_bundles", "convert"]

_GOLDEN_IMAGES = 4

# Of mixed precision: enough that one image is not a whole point of a metric, few enough that
# dozens of files are scored in a minute.
_HELD_OUT = 128


@dataclass
class ConvertResult:
    """What a conversion made and measured.

    Attributes:
        recipe: resolved.
        folder: where the Keras model and the Bundles are.
        model_path: the Keras model.
        parameters: its weights, counted.
        float_scores: "metrics", "counts", "ranges" of the Keras model on the test set.
        baseline: the trivial predictor's, from the training set, on the same test set.
        bundles: by precision.
        checks: verification, by precision.
        evaluations: evaluation.json, by precision.
        benchmarks: benchmark.json, by precision.
        seconds: of each stage.
        pruning: what pruning cost and bought, where the recipe asks for it.
        aware: what quantization-aware training brought, where the recipe has steps of it.
        mixed: which layers of the int8 file stayed float, where the recipe sets a budget.
        doctor: of the calibration images; None where no file needs any.
        skipped: why training samples were left out, a text each.
        label_problems: what was mended in, or left out of, the labels of the others.
    """

    recipe: Recipe
    folder: Path
    model_path: Path
    parameters: int = 0
    float_scores: dict[str, Any] = field(default_factory=dict)
    baseline: dict[str, Any] | None = None
    bundles: dict[str, Bundle] = field(default_factory=dict)
    checks: dict[str, list[Check]] = field(default_factory=dict)
    evaluations: dict[str, dict[str, Any]] = field(default_factory=dict)
    benchmarks: dict[str, dict[str, Any]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    pruning: PruneReport | None = None
    mixed: MixedResult | None = None
    aware: QatReport | None = None
    doctor: DoctorReport | None = None
    skipped: list[str] = field(default_factory=list)
    label_problems: list[str] = field(default_factory=list)


def convert(
    recipe: Recipe,
    folder: Path,
    *,
    model_file: Path | None = None,
    prune_given: bool = False,
    profile: DeviceProfile | None = None,
    bench_settings: BenchSettings | None = None,
    progress: Progress | None = None,
) -> ConvertResult:
    """Build and train a model, make one Bundle per precision, and prove each.

    Args:
        recipe: what to build.
        folder: for the Keras model (model.keras; pruned.keras where the recipe prunes), the
            resolved recipe (recipe.yaml) and the Bundles (one folder per precision).
        model_file: a trained `.keras` model to convert instead of building and training one.
        prune_given: prune that model, too. Otherwise it stays as it is, as what `edgeheads prune`
            made lies beside a recipe that prunes.
        profile: where to verify, evaluate and time; default: this machine.
        bench_settings: of the latency measurement.
        progress: where to report.

    Raises:
        EdgeheadsError: anything in the recipe, data, weights, model or folder that cannot work.
            What was finished before stays; nothing is left half-written.
    """
    progress = progress or SilentProgress()
    task = get_task(recipe.task, recipe.head.options)
    _require_float_runs(recipe, profile)
    set_up_backend(recipe.seed)
    prepare_folder(folder)
    watch = Stopwatch()
    result = ConvertResult(recipe, folder, model_path(folder), seconds=watch.seconds)

    # The test samples are opened first: a test split that cannot be had should not cost a
    # training run.
    test = open_source(recipe.values()["data"], "test", size=recipe.input_size, seed=recipe.seed)
    trains_for_int8 = recipe.quantize_aware.steps > 0 and any(
        map(_rounds, recipe.export.precisions)
    )
    prunes = recipe.prune.target is not None and (model_file is None or prune_given)
    scores = recipe.export.max_drop is not None or trains_for_int8
    with watch.stage("read the data"):
        whole = model_file is None or prunes or scores
        data, baseline = _read_data(recipe, task, whole, progress)
    result.skipped = list(data.skipped.reasons)
    result.label_problems = list(data.skipped.problems)
    chosen = data.samples[: recipe.export.calibration_samples]
    result.doctor = _examined(recipe, inputs_of_samples(InputScaling(), chosen, data.names))
    held_out = []
    if scores:
        held_out = held_out_samples(recipe, task, data.samples, _HELD_OUT)
    if model_file is None:
        with watch.stage("train"):
            edge = train(recipe, task, data, folder, progress)
    else:
        edge = load(model_file, recipe, task, data.names)
        result.model_path = model_file
    if prunes:
        with watch.stage("prune and recover"), DeviceSession(profile) as session:
            edge, result.pruning = prune_edge_model(
                edge, recipe, task, data, test, session, bench_settings, progress
            )
        result.model_path = folder / "pruned.keras"
        save_model(edge.model, recipe, result.model_path)
        save_report(result.pruning, folder)
    result.parameters = edge.model.count_params()
    calibration = inputs_of_samples(edge.scaling, chosen, data.names)
    # A model trained here has seen just these images.
    if result.doctor is not None and model_file is not None:
        result.doctor = diagnose_model(result.doctor, calibration.images, keras_model=edge.model)
        result.doctor.require_usable()

    with watch.stage("evaluate the float model"):
        result.float_scores = score(
            task,
            edge.decoding,
            test,
            edge.predictor(task),
            edge.size,
            strict=recipe.data.strict,
            progress=progress,
            title="Evaluating Keras",
        )
        result.baseline = score_baseline(task, edge.decoding, test, baseline)
    with DeviceSession(profile) as session:
        scorer = None
        if recipe.export.max_drop is not None:
            scorer = HeldOut(edge, task, held_out, session)
            scorer.budget(recipe.export.max_drop)  # fail now, not after the other files
        aware: TrainedForInt8 | None = None
        if trains_for_int8:
            with watch.stage("train for int8"):
                aware = train_for_int8(
                    edge,
                    recipe,
                    task,
                    data,
                    held_out,
                    session,
                    progress,
                    per_channel=(profile or DeviceProfile()).quantization.per_channel,
                )
                result.aware = aware.report
                if aware.report.kept:
                    path = folder / "quantize_aware.keras"
                    save_model(aware.aware.float_model(), recipe, path)
        for precision in recipe.export.precisions:
            with watch.stage(f"convert to {precision}"):
                mixed, source = None, edge
                if aware and aware.report.kept and _rounds(precision):
                    content, source = aware.to_tflite(precision), aware.edge
                else:
                    content, mixed = _file(
                        edge,
                        recipe,
                        precision,
                        calibration.images,
                        scorer if precision == "int8" else None,
                        profile,
                        progress,
                    )
                bundle = _make_bundle(
                    source, recipe, precision, content, data.samples, baseline, folder, session
                )
                if aware and _rounds(precision):
                    bundle.save_measurement("quantize_aware", aware.report.as_json())
                if mixed is not None:
                    result.mixed = mixed
                    bundle.save_measurement("mixed_precision", mixed.as_json())
                result.bundles[precision] = bundle
            with watch.stage("verify and evaluate"):
                result.checks[precision] = verify(bundle, session)
                keep_float_scores(bundle, result.float_scores)
                result.evaluations[precision] = evaluate(bundle, session, progress=progress)
        with watch.stage("time"), progress.step("Timing, one file after the other"):
            result.benchmarks = bench_bundles(result.bundles, session, bench_settings)
    return result


def bench_bundles(
    bundles: Mapping[str, Bundle], session: DeviceSession, settings: BenchSettings | None = None
) -> dict[str, dict[str, Any]]:
    """Time Bundles against each other on one device, and store each one's benchmark.json."""
    results = compare(
        session, {name: bundle.model_path for name, bundle in bundles.items()}, settings
    )
    label = device_label(session.profile)
    for name, bundle in bundles.items():
        about = {"device": session.profile.name, "label": label}
        bundle.save_measurement(measurement_name("benchmark", label), {**results[name], **about})
    return results


def _rounds(precision: str) -> bool:
    """Tell whether a precision has the activations that quantization-aware training rounds."""
    return get_scheme(precision).activations == "int8"


def _require_float_runs(recipe: Recipe, profile: DeviceProfile | None) -> None:
    """Refuse mixed precision where it cannot be had, before anything is trained."""
    if recipe.export.max_drop is not None and recipe.quantize_aware.steps:
        raise EdgeheadsError(
            "mixed precision (export.max_drop) and quantization-aware training "
            f"(quantize_aware.steps, received {recipe.quantize_aware.steps}) exclude each other: "
            "one keeps layers float, the other trains all of them for int8; choose one"
        )
    if recipe.export.max_drop is not None and "int8" not in recipe.export.precisions:
        raise EdgeheadsError(
            "mixed precision keeps layers of the int8 file float, and export.precisions has no "
            f"int8, received {', '.join(recipe.export.precisions)} with export.max_drop "
            f"{recipe.export.max_drop:g}; add int8 (--precision), or leave export.max_drop "
            "(--mixed) out"
        )
    others = recipe.export.max_drop is not None or recipe.quantize_aware.steps > 0
    if recipe.export.fast_for != "any" and others:
        raise EdgeheadsError(
            f"export.fast_for {recipe.export.fast_for} changes the graph that mixed precision and "
            "quantization-aware training work on; set it to any, or leave them out"
        )
    runs = profile.quantization.precisions if profile else ("float32",)
    if recipe.export.max_drop is not None and "float32" not in runs:
        assert profile is not None  # noqa: S101 - this machine runs all
        raise EdgeheadsError(
            f"mixed precision keeps layers in float32, and {profile.name} runs "
            f"{', '.join(runs)} alone; leave export.max_drop (--mixed) out, or choose another "
            "device"
        )


def _read_data(
    recipe: Recipe, task: Task, whole: bool, progress: Progress
) -> tuple[TrainingData, dict[str, Any]]:
    """Return the training samples, or what a conversion alone needs of them, and the baseline."""
    if not whole:
        return read_bare_data(recipe, task, _GOLDEN_IMAGES, progress)
    data = read_training_data(recipe, task, progress)
    return data, task.baseline(data.samples, data.names)


def _examined(recipe: Recipe, pixels: CalibrationInputs) -> DoctorReport | None:
    """Look at the calibration images, where a file needs some, before anything is trained.

    What a model computes of them is looked at once there is one, without ranges of two halves,
    which would take as long as the calibration itself: `edgeheads quantize --doctor` measures
    these.
    """
    if not any(get_scheme(name).calibrated for name in recipe.export.precisions):
        return None
    report = diagnose_images(
        pixels.images,
        (1, *recipe.input_size, 3),
        expected=pixels.expected,
        labels=pixels.labels,
        classes=pixels.classes,
    )
    report.require_usable()
    return report


def _file(
    edge: EdgeModel,
    recipe: Recipe,
    precision: str,
    images: Images,
    scorer: HeldOut | None,
    profile: DeviceProfile | None,
    progress: Progress,
) -> tuple[bytes, MixedResult | None]:
    """Return the .tflite file, and how it was found where `scorer` guards a budget."""
    # How often the images are read is the calibration's business.
    per_channel = (profile or DeviceProfile()).quantization.per_channel
    with progress.step(f"Converting to {precision}"):
        graph = edge.model.inputs[0], edge.outputs
        if scorer is None or recipe.export.max_drop is None:
            content = convert_to_tflite(
                *graph,
                precision,
                images,
                calibration=recipe.export.calibration,
                per_channel=per_channel,
                speed=named_speed(recipe.export.fast_for),
            )
            return content, None
        mixed = mixed_precision(
            convert_to_float_tflite(*graph, equalized_on=None if per_channel else images),
            images,
            scorer.drop_of,
            scorer.budget(recipe.export.max_drop),
            calibration=recipe.export.calibration,
            per_channel=per_channel,
            metric=scorer.metric.title,
        )
        return compact(mixed.content), mixed


def _make_bundle(
    edge: EdgeModel,
    recipe: Recipe,
    precision: str,
    content: bytes,
    samples: Sequence[Sample],
    baseline: Mapping[str, Any],
    folder: Path,
    session: DeviceSession,
) -> Bundle:
    golden_images = np.stack([sample.image for sample in samples[-_GOLDEN_IMAGES:]])
    with tempfile.TemporaryDirectory(prefix="edgeheads-") as draft:
        path = Path(draft, "model.tflite")
        path.write_bytes(content)
        contract, tools = _describe(edge, path, session)
        prepared = np.concatenate([contract.image.prepare(image) for image in golden_images])
        expected = session.predict(path, {contract.image.tensor.name: prepared})
    reference = edge.predict(list(golden_images))
    return write_bundle(
        folder / precision,
        BundleContent(
            model=content,
            task=recipe.task,
            precision=precision,
            contract=contract,
            recipe=recipe.values(),
            recipe_yaml=recipe_to_yaml(recipe),
            baseline=baseline,
            golden={
                "images": golden_images,
                **{f"expected/{name}": array for name, array in expected.items()},
                **{f"reference/{name}": array for name, array in reference.items()},
            },
            tools=tools,
        ),
    )


def _describe(
    edge: EdgeModel, path: Path, session: DeviceSession
) -> tuple[Contract, dict[str, str]]:
    """Read the contract off the file itself: what it says of its tensors is what counts."""
    facts = session.inspect(path)
    [image] = facts["inputs"]
    contract = Contract(
        ImageInput(tensor_spec(image), edge.scaling.scale, edge.scaling.offset),
        tuple(tensor_spec(output) for output in facts["outputs"]),
        edge.decoding,
        edge.labels,
    )
    import tensorflow as tf

    # TensorFlow is installed under several names: tensorflow-cpu, tf-nightly, ...
    tools = {name: version(name) for name in ("edgeheads", "keras", "numpy")}
    tools["tensorflow"] = tf.__version__
    runtime = facts["runtime"]
    tools |= {runtime["name"]: runtime["version"], "machine": platform.machine()}
    return contract, tools
