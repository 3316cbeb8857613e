"""The main job: from a recipe, or a trained model, to proved Bundles."""

from __future__ import annotations

import platform
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from edgeheads.backbones import InputScaling, create_backbone
from edgeheads.bench.latency import compare
from edgeheads.bundle import Bundle, BundleContent, write_atomically, write_bundle
from edgeheads.contract import Contract, ImageInput, scale_pixels
from edgeheads.data.images import resize_nearest, resize_rgb
from edgeheads.data.sample import Sample
from edgeheads.data.sources import open_source
from edgeheads.device import DeviceProfile
from edgeheads.errors import EdgeheadsError
from edgeheads.evaluate import Predictor, evaluate, score, score_baseline
from edgeheads.export.tflite import convert_to_tflite
from edgeheads.heads import HeadConfiguration
from edgeheads.model import build_model
from edgeheads.progress import Progress, SilentProgress
from edgeheads.recipe import Recipe, recipe_to_yaml
from edgeheads.runtime import BenchSettings, DeviceSession
from edgeheads.tasks import get_task
from edgeheads.tasks.base import Array, Prediction, Task
from edgeheads.training.batches import TrainingBatches
from edgeheads.training.fit import fit
from edgeheads.verify import Check, tensor_spec, verify

__all__ = ["ConvertResult", "convert"]

_GOLDEN_IMAGES = 4
_BATCH = 16

_PRESETS = {
    "default": HeadConfiguration.get_default_config,
    "efficient": HeadConfiguration.get_efficient_config,
    "high_performance": HeadConfiguration.get_high_performance_config,
}


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


@dataclass(frozen=True)
class _Edge:
    """The part of a Keras model that becomes the file."""

    model: keras.Model
    outputs: dict[str, Any]
    decoding: dict[str, Any]
    scaling: InputScaling

    @property
    def size(self) -> tuple[int, int]:
        height, width = self.model.inputs[0].shape[1:3]
        return height, width


def convert(
    recipe: Recipe,
    folder: Path,
    *,
    model_file: Path | None = None,
    profile: DeviceProfile | None = None,
    bench_settings: BenchSettings | None = None,
    progress: Progress | None = None,
) -> ConvertResult:
    """Build and train a model, make one Bundle per precision, and prove each.

    Args:
        recipe: what to build.
        folder: for the Keras model (model.keras), the resolved recipe (recipe.yaml) and the
            Bundles (one folder per precision).
        model_file: a trained `.keras` model to convert instead of building and training one.
        profile: where to verify, evaluate and time; default: this machine.
        bench_settings: of the latency measurement.
        progress: where to report.

    Raises:
        EdgeheadsError: anything in the recipe, data, weights, model or folder that cannot work.
            What was finished before stays; nothing is left half-written.
    """
    progress = progress or SilentProgress()
    task = get_task(recipe.task)
    _set_up_backend(recipe.seed)
    _prepare_folder(folder)
    result = ConvertResult(recipe, folder, folder / "model.keras")

    # The test samples are opened first: a broken test split should not cost a training run.
    test = open_source(recipe.values()["data"], "test", size=recipe.input_size, seed=recipe.seed)
    task.check(test[0])
    samples = _read_training_samples(recipe, task, result, progress)
    baseline = task.baseline(samples)
    if model_file is None:
        edge = _train(recipe, task, samples, result, progress)
        _save_model(edge.model, recipe, result)
    else:
        edge = _load_model(model_file, recipe, task)
        result.model_path = model_file
    result.parameters = edge.model.count_params()

    with _timed(result, "evaluate the float model"):
        result.float_scores = score(
            task,
            edge.decoding,
            test,
            _keras_predictor(edge, task),
            edge.size,
            progress=progress,
            title="Evaluating Keras",
        )
        result.baseline = score_baseline(task, edge.decoding, test, baseline)
    with DeviceSession(profile) as session:
        for precision in recipe.export.precisions:
            with _timed(result, f"convert to {precision}"):
                bundle = _make_bundle(
                    edge, recipe, precision, samples, baseline, folder, session, progress
                )
                result.bundles[precision] = bundle
            with _timed(result, "verify and evaluate"):
                result.checks[precision] = verify(bundle, session)
                result.evaluations[precision] = evaluate(bundle, session, progress=progress)
        with _timed(result, "time"), progress.step("Timing, one file after the other"):
            result.benchmarks = bench_bundles(result.bundles, session, bench_settings)
    return result


def bench_bundles(
    bundles: Mapping[str, Bundle], session: DeviceSession, settings: BenchSettings | None = None
) -> dict[str, dict[str, Any]]:
    """Time Bundles against each other on one device, and store each one's benchmark.json."""
    results = compare(
        session, {name: bundle.model_path for name, bundle in bundles.items()}, settings
    )
    for name, bundle in bundles.items():
        bundle.save_measurement("benchmark", {**results[name], "device": session.profile.name})
    return results


# Stages


def _set_up_backend(seed: int) -> None:
    """The same recipe gives the same file, bit for bit, on the same machine and versions."""
    keras.utils.set_random_seed(seed)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
        # Rewriting the training graph takes longer than a short training gains from it.
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})


def _prepare_folder(folder: Path) -> None:
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


def _read_training_samples(
    recipe: Recipe, task: Task, result: ConvertResult, progress: Progress
) -> list[Sample]:
    """Read and check every training sample once, at the network's size, to bound the memory."""
    source = open_source(recipe.values()["data"], "train", size=recipe.input_size, seed=recipe.seed)
    title = "Rendering scenes" if recipe.data.source == "synthetic" else "Reading images"
    samples = []
    with _timed(result, "read the data"), progress.step(title, len(source)) as step:
        for sample in source:
            task.check(sample)
            samples.append(_resized(sample, recipe.input_size))
            step.advance()
    return samples


def _resized(sample: Sample, size: tuple[int, int]) -> Sample:
    def nearest(values: Array | None) -> Array | None:
        return None if values is None else resize_nearest(values, size)

    return replace(
        sample,
        image=resize_rgb(sample.image, size),
        depth=nearest(sample.depth),
        normals=nearest(sample.normals),
        instances=nearest(sample.instances),
    )


def _train(
    recipe: Recipe, task: Task, samples: list[Sample], result: ConvertResult, progress: Progress
) -> _Edge:
    section = recipe.backbone
    backbone = create_backbone(
        section.name,
        (*recipe.input_size, 3),
        weights=section.weights,
        width=section.width,
        levels=section.levels,
    )
    preset = _PRESETS[recipe.head.preset](task.type)
    # The preset's factor is for a head on its own; here the output is as large as the input.
    preset.pop("upsampling_factor", None)
    model = build_model(backbone, task.type, **{**preset, **recipe.head.options})
    training = recipe.training
    batches = TrainingBatches(
        samples,
        task,
        size=recipe.input_size,
        scaling=backbone.scaling,
        steps=training.steps,
        batch_size=training.batch_size,
        augmentations=task.augmentations if training.augment else (),
        seed=recipe.seed,
    )
    with _timed(result, "train"):
        fit(
            model,
            batches,
            task,
            learning_rate=training.learning_rate,
            weight_decay=training.weight_decay,
            warmup_fraction=training.warmup_fraction,
            progress=progress,
        )
    return _Edge(model, *task.edge_outputs(model), backbone.scaling)


def _save_model(model: keras.Model, recipe: Recipe, result: ConvertResult) -> None:
    draft = result.model_path.with_name(".model-draft.keras")
    try:
        model.save(draft)
        draft.replace(result.model_path)
        write_atomically(result.folder / "recipe.yaml", recipe_to_yaml(recipe))
    finally:
        draft.unlink(missing_ok=True)


def _load_model(path: Path, recipe: Recipe, task: Task) -> _Edge:
    if not path.is_file():
        raise EdgeheadsError(f"model {path} does not exist; give a .keras file")
    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # zipfile, h5py, json and Keras each have their own
        raise EdgeheadsError(
            f"model {path} cannot be loaded ({' '.join(str(error).split())[:200]}); "
            "expected a .keras file of stock layers"
        ) from None
    # A Sequential model that was never called has none.
    shapes = [tuple(tensor.shape) for tensor in getattr(model, "inputs", None) or ()]
    if len(shapes) != 1 or shapes[0][1:] != (*recipe.input_size, 3):
        raise EdgeheadsError(
            f"model {path} must take one image of shape {(None, *recipe.input_size, 3)}, as the "
            f"recipe says, received {shapes}; set --input-size"
        )
    for variable in model.weights:
        if not np.isfinite(keras.ops.convert_to_numpy(variable)).all():
            raise EdgeheadsError(
                f"model {path} holds NaN or infinite values in {variable.path}; train it again"
            )
    scaling = create_backbone(
        recipe.backbone.name, (*recipe.input_size, 3), width=recipe.backbone.width
    ).scaling
    return _Edge(model, *task.edge_outputs(model), scaling)


def _make_bundle(
    edge: _Edge,
    recipe: Recipe,
    precision: str,
    samples: Sequence[Sample],
    baseline: Mapping[str, Any],
    folder: Path,
    session: DeviceSession,
    progress: Progress,
) -> Bundle:
    calibration = samples[: recipe.export.calibration_samples]
    with progress.step(
        f"Converting to {precision}", len(calibration) if precision == "int8" else None
    ) as step:

        def images() -> Iterator[Array]:
            for sample in calibration:
                yield _scaled(edge, [sample.image])
                step.advance()

        content = convert_to_tflite(edge.model.inputs[0], edge.outputs, precision, images)
    golden_images = np.stack([sample.image for sample in samples[-_GOLDEN_IMAGES:]])
    with tempfile.TemporaryDirectory(prefix="edgeheads-") as draft:
        path = Path(draft, "model.tflite")
        path.write_bytes(content)
        contract, tools = _describe(edge, path, session)
        prepared = np.concatenate([contract.image.prepare(image) for image in golden_images])
        expected = session.predict(path, {contract.image.tensor.name: prepared})
    reference = _predict_edge(edge, list(golden_images))
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


def _describe(edge: _Edge, path: Path, session: DeviceSession) -> tuple[Contract, dict[str, str]]:
    """Read the contract off the file itself: what it says of its tensors is what counts."""
    facts = session.inspect(path)
    [image] = facts["inputs"]
    contract = Contract(
        ImageInput(tensor_spec(image), edge.scaling.scale, edge.scaling.offset),
        tuple(tensor_spec(output) for output in facts["outputs"]),
        edge.decoding,
    )
    import tensorflow as tf

    # TensorFlow is installed under several names: tensorflow-cpu, tf-nightly, ...
    tools = {name: version(name) for name in ("edgeheads", "keras", "numpy")}
    tools["tensorflow"] = tf.__version__
    runtime = facts["runtime"]
    tools |= {runtime["name"]: runtime["version"], "machine": platform.machine()}
    return contract, tools


# The float model


def _scaled(edge: _Edge, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
    return scale_pixels(np.stack(images), edge.scaling.scale, edge.scaling.offset)


def _predict_edge(edge: _Edge, images: Sequence[NDArray[np.uint8]]) -> dict[str, Array]:
    graph = keras.Model(edge.model.inputs[0], edge.outputs)
    outputs = graph.predict(_scaled(edge, images), batch_size=_BATCH, verbose=0)
    return {name: np.asarray(array) for name, array in outputs.items()}


def _keras_predictor(edge: _Edge, task: Task) -> Predictor:
    def predict(images: Sequence[NDArray[np.uint8]]) -> list[Prediction]:
        outputs = _predict_edge(edge, images)
        return [
            task.decode({name: array[i : i + 1] for name, array in outputs.items()}, edge.decoding)
            for i in range(len(images))
        ]

    return predict


@contextmanager
def _timed(result: ConvertResult, stage: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    elapsed = time.perf_counter() - started
    result.seconds[stage] = result.seconds.get(stage, 0.0) + elapsed
