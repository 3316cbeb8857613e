"""The files of the measuring program: models, arrays and results."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeheads.ondevice.failure import MeasureError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["check_model_file", "file_facts", "read_arrays", "write_arrays", "write_json"]


def check_model_file(model: str) -> None:
    """Make sure that a file can be a TFLite file at all.

    Older interpreters follow the offsets of any file without a check, and crash.
    """
    path = Path(model)
    if not path.is_file():
        raise MeasureError("bad-request", f"expected a model file, {model} does not exist")
    with path.open("rb") as file:
        head = file.read(8)
    size = path.stat().st_size
    if head[4:8] != b"TFL3" or int.from_bytes(head[:4], "little") >= size:
        raise MeasureError(
            "bad-model",
            f"expected a TFLite file (bytes 4 to 7 are TFL3), received {size} bytes that start "
            f"with {head!r}; convert the model to .tflite, or copy it again",
        )


def file_facts(model: str) -> dict[str, Any]:
    """Return the size and hash of a file that `check_model_file` has seen."""
    digest, size = hashlib.sha256(), 0
    with Path(model).open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
            size += len(block)
    return {"sha256": digest.hexdigest(), "size_bytes": size}


def read_arrays(path: str | Path) -> dict[str, NDArray[Any]]:
    """Read an .npz by name. Anything else, and pickled objects, are refused with a ValueError."""
    archive = np.load(path, allow_pickle=False)
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise ValueError(f"{path} holds a single array without a name")
    with archive:
        return {name: archive[name] for name in archive.files}


def write_arrays(path: str | Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write an .npz, whole or not at all. Unlike numpy.savez it takes any name, and no objects."""
    temporary = Path(f"{path}.tmp")
    with zipfile.ZipFile(str(temporary), "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.asanyarray(array), allow_pickle=False)
    temporary.replace(path)


def write_json(path: str, content: Mapping[str, Any]) -> None:
    """Write an object, whole or not at all."""
    temporary = Path(f"{path}.tmp")
    temporary.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    temporary.replace(path)
