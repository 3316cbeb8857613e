"""The size and speed of the file that a model becomes."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import keras
import numpy as np

from edgeheads.bench.latency import compare
from edgeheads.compression.graph import OutputsOf, name_outputs
from edgeheads.compression.quantize.float_twin import in_float32
from edgeheads.errors import EdgeheadsError
from edgeheads.export.tflite import convert_to_tflite
from edgeheads.runtime import BenchSettings, DeviceSession
from edgeheads.tasks.base import Array

__all__ = ["Exporter", "FileMeter", "random_images"]

_SEARCH = BenchSettings(runs=64, max_seconds=5.0)
_RANDOM_IMAGES = 4


def random_images(model: keras.Model) -> Callable[[], Iterable[Array]]:
    """Return calibration inputs [1, H, W, C] in [-1, 1] that make an int8 file of the same speed.

    What it computes is then worth nothing.
    """

    def images() -> Iterator[Array]:
        for seed in range(_RANDOM_IMAGES):
            shape = (1, *model.inputs[0].shape[1:])
            yield np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)

    return images


class Exporter:
    """Turns models of one family into files.

    Args:
        outputs: model -> {name in the file: symbolic tensor}; default: all that it returns.
        calibration: real-valued inputs [1, H, W, C], for int8; default: random ones.
    """

    def __init__(
        self,
        outputs: OutputsOf | None = None,
        calibration: Callable[[], Iterable[Array]] | None = None,
    ) -> None:
        self._outputs = outputs or name_outputs
        self._calibration = calibration

    def __call__(self, model: keras.Model, precision: str) -> bytes:
        """Return the bytes of the .tflite file.

        Raises:
            EdgeheadsError: the model takes more than one input.
            RuntimeFailureError: the converter refuses the model.
        """
        if len(model.inputs) != 1:
            raise EdgeheadsError(
                f"a file is made of a model with one input, {model.name!r} has "
                f"{len(model.inputs)}: targets in macs and parameters work, size and latency do not"
            )
        model = in_float32(model)
        calibration = self._calibration or random_images(model)
        return convert_to_tflite(model.inputs[0], self._outputs(model), precision, calibration)


class FileMeter:
    """Measures models for a target in "size" (bytes) or "latency" (ms, median).

    Latencies are paired: each model is timed in turn with the first one that was measured, and
    what is returned is that one's time multiplied by the ratio. So a machine that gets busy
    between two candidates does not decide between them.

    Args:
        kind: "size" or "latency".
        precision: of the file.
        exporter: makes files of the models.
        session: the device, for "latency".
        settings: of the measurement.
        repeats: rounds in turn.
    """

    def __init__(
        self,
        kind: str,
        precision: str,
        exporter: Exporter | None = None,
        session: DeviceSession | None = None,
        settings: BenchSettings | None = None,
        repeats: int = 3,
    ) -> None:
        self._kind = kind
        self._precision = precision
        self._exporter = exporter or Exporter()
        self._session = session
        self._settings = settings or _SEARCH
        self._repeats = repeats
        self._first: bytes | None = None
        self._first_ms = 0.0

    def __call__(self, model: keras.Model) -> float:
        """Return the model's bytes or milliseconds."""
        content = self._exporter(model, self._precision)
        if self._kind == "size":
            return float(len(content))
        if self._session is None:
            raise EdgeheadsError(
                "a latency is measured on a device: give the meter an open DeviceSession"
            )
        first = self._first or content
        with tempfile.TemporaryDirectory(prefix="edgeheads-") as folder:
            files = {name: Path(folder, f"{name}.tflite") for name in ("first", "model")}
            files["first"].write_bytes(first)
            files["model"].write_bytes(content)
            results = compare(self._session, files, self._settings, self._repeats)
        if self._first is None:
            self._first, self._first_ms = content, results["first"]["latency_ms"]["p50"]
            return self._first_ms
        return self._first_ms * float(results["model"]["ratio_to_first"])
