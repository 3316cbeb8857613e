"""Fixtures that more than one folder of tests uses."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edgeheads.runtime import BenchSettings

if TYPE_CHECKING:
    from edgeheads.convert import ConvertResult
    from edgeheads.recipe import Recipe

# A job in the background of a shell is started with Ctrl-C ignored, and so would its children be.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

QUICK_BENCH = BenchSettings(warmup_runs=1, min_warmup_seconds=0.0, runs=3, max_seconds=5.0)


@dataclass(frozen=True)
class TinyModels:
    """Small .tflite files with the input `image` and two outputs of different shape.

    `image` is [1, 8, 8, 3], in [0, 1] before quantization; `area` is [1, 2], `heat` [1, 8, 8, 2].

    Attributes:
        float32: two convolutions, all of which XNNPACK takes.
        int8: the same, quantized throughout, input and outputs included.
        split: int8 with a REVERSE_V2, which XNNPACK does not take, between the convolutions.
    """

    float32: Path
    int8: Path
    split: Path


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> TinyModels:
    folder = tmp_path_factory.mktemp("tiny_models")
    plain, split = _saved_model(folder / "plain"), _saved_model(folder / "split", split=True)
    files = {
        "float32": _convert(plain, quantize=False),
        "int8": _convert(plain, quantize=True),
        "split": _convert(split, quantize=True),
    }
    for name, content in files.items():
        (folder / f"{name}.tflite").write_bytes(content)
    return TinyModels(**{name: folder / f"{name}.tflite" for name in files})


def _saved_model(folder: Path, split: bool = False) -> str:
    keras = pytest.importorskip("keras")
    tf = pytest.importorskip("tensorflow")
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 3))
    hidden = keras.layers.Conv2D(4, 3, padding="same", activation="relu")(image)
    if split:
        hidden = keras.ops.flip(hidden, axis=1)
    model = keras.Model(image, keras.layers.Conv2D(2, 3, padding="same")(hidden))

    def serve(image: Any) -> dict[str, Any]:
        features = model(image)
        return {"heat": tf.nn.sigmoid(features), "area": tf.reduce_mean(features, [1, 2])}

    archive = keras.export.ExportArchive()
    archive.track(model)
    signature = [tf.TensorSpec([1, 8, 8, 3], tf.float32, name="image")]
    archive.add_endpoint("serving_default", serve, input_signature=signature)
    archive.write_out(str(folder), verbose=False)
    return str(folder)


def _convert(saved_model: str, quantize: bool) -> bytes:
    import tensorflow as tf

    def samples() -> Iterator[list[np.ndarray]]:
        rng = np.random.default_rng(0)
        for _ in range(4):
            yield [rng.random((1, 8, 8, 3), np.float32)]

    converter = tf.lite.TFLiteConverter.from_saved_model(saved_model)
    if quantize:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = samples
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
    return converter.convert()


def tiny_recipe(**changes: Any) -> Recipe:
    """Return a recipe that converts in seconds."""
    from edgeheads.recipe import load_recipe

    return load_recipe("depth-mobilenet_v2_0.35-128").with_values(
        **{
            "input_size": 64,
            "backbone": {"name": "tiny"},
            "head.options": {"min_depth": 0.4, "max_depth": 10.0, "hidden_dim": 16},
            "data.train_samples": 6,
            "data.test_samples": 3,
            "training.steps": 3,
            "training.batch_size": 4,
            "export.precisions": ["float32", "float16", "int8"],
            "export.calibration_samples": 6,
            **changes,
        }
    )


@pytest.fixture(scope="session")
def converted(tmp_path_factory: pytest.TempPathFactory) -> ConvertResult:
    """A whole conversion, made once. Copy a Bundle before changing it."""
    pytest.importorskip("tensorflow")
    from edgeheads.convert import convert

    folder = tmp_path_factory.mktemp("converted") / "run"
    return convert(tiny_recipe(), folder, bench_settings=QUICK_BENCH)


@pytest.fixture
def two_bundles(converted: ConvertResult, tmp_path: Path) -> Path:
    """A folder, of a name that HTML must escape, with Bundles of `converted` to be changed."""
    folder = tmp_path / "<b>run"
    for precision in ("float32", "int8"):
        shutil.copytree(converted.bundles[precision].folder, folder / precision)
    return folder
