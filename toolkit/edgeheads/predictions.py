"""Keeping a device's predictions until all are there: what an interrupted evaluation goes on from.

They lie in the user's cache folder, one .npz per chunk of images. A chunk is known by everything
that decides its outputs (the model, the interpreter, how it was loaded, the input values), so that
nothing stale is ever used, whatever happened in between.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeheads.bundle import Bundle
from edgeheads.data.sample import Sample
from edgeheads.errors import EdgeheadsError
from edgeheads.measurements import device_label, measurement_name
from edgeheads.ondevice.files import read_arrays, write_arrays
from edgeheads.runtime import DeviceSession

__all__ = ["DataDigest", "PredictionStore", "cache_folder", "open_store"]

_Arrays = dict[str, NDArray[Any]]


class PredictionStore:
    """Outputs of chunks that were computed already.

    Args:
        folder: for this model, device and interpreter alone; made when the first chunk comes.
        setup: what else decides the outputs, as JSON values.
    Attributes:
        found_images: how many images' outputs were there already.
        kept_images: how many were added.
    """

    def __init__(self, folder: Path, setup: Mapping[str, Any]) -> None:
        self.folder = folder
        self.found_images = 0
        self.kept_images = 0
        self._setup = json.dumps(setup, sort_keys=True).encode()

    def find(self, inputs: Mapping[str, NDArray[Any]]) -> _Arrays | None:
        """Return the outputs for inputs [N, ...] of earlier, or None."""
        try:
            outputs = read_arrays(self._path(inputs))
        except (OSError, ValueError, EOFError, zipfile.BadZipFile):
            return None
        self.found_images += _length(inputs)
        return outputs

    def keep(self, inputs: Mapping[str, NDArray[Any]], outputs: Mapping[str, NDArray[Any]]) -> None:
        """Write the outputs for inputs [N, ...], whole or not at all."""
        path = self._path(inputs)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_arrays(path, outputs)
        except OSError as error:
            raise EdgeheadsError(
                f"cannot keep predictions in {path.parent} ({error.strerror or error}); make "
                "room, or set XDG_CACHE_HOME to a folder that can be written"
            ) from None
        self.kept_images += _length(inputs)

    def clear(self) -> None:
        """Remove everything: the evaluation is complete."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, inputs: Mapping[str, NDArray[Any]]) -> Path:
        digest = hashlib.sha256(self._setup)
        for name in sorted(inputs):
            _feed(digest, name, inputs[name])
        return self.folder / f"{digest.hexdigest()}.npz"


class DataDigest:
    """The SHA-256 of samples, image and labels, in their order."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def update(self, sample: Sample) -> None:
        """Take a sample into account; its name does not count, nor what was wrong with it."""
        for field in fields(sample):
            if field.name not in ("name", "problems"):
                _feed(self._digest, field.name, getattr(sample, field.name))

    def hexdigest(self) -> str:
        """Return the hash of all samples so far."""
        return self._digest.hexdigest()


def cache_folder() -> Path:
    """Return where files lie that can be made again: $XDG_CACHE_HOME, or ~/.cache."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base, "edgeheads")


def open_store(bundle: Bundle, session: DeviceSession) -> PredictionStore:
    """Return the store for a Bundle on a device, as an interrupted evaluation left it, or empty."""
    profile = session.profile
    name = measurement_name(bundle.sha256[:16], device_label(profile))
    setup = {
        "model": bundle.sha256,
        "runtime": session.inspect(bundle.model_path)["runtime"],
        "delegate": profile.delegate,
        "threads": profile.threads,
    }
    return PredictionStore(cache_folder() / "predictions" / name, setup)


def _feed(digest: Any, name: str, value: Any) -> None:
    """Add a value to a hash: nothing, a number, an array, or a dataclass of these."""
    if value is None or isinstance(value, (int, float, np.generic)):
        digest.update(f"{name}={value!r};".encode())
    elif isinstance(value, np.ndarray):
        digest.update(f"{name}:{value.dtype.str}{value.shape};".encode())
        digest.update(np.ascontiguousarray(value).tobytes())
    else:
        digest.update(f"{name}{{".encode())
        for field in fields(value):
            _feed(digest, field.name, getattr(value, field.name))
        digest.update(b"}")


def _length(inputs: Mapping[str, NDArray[Any]]) -> int:
    return len(next(iter(inputs.values())))
