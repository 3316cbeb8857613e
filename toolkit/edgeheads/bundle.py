"""The Bundle: a folder with a .tflite file and everything needed to use and to prove it.

model.tflite         the file itself
manifest.json        schema version, hashes, versions, contract, recipe, baseline
recipe.yaml          the resolved recipe, which reproduces the file
labels.txt           one class name a line; empty for tasks without classes
golden.npz           a few input images, and the outputs they must give
verification.json, evaluation.json, benchmark.json
                     measurements; each names the SHA-256 of the file it measured
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeheads.contract import Contract
from edgeheads.errors import CheckFailedError, EdgeheadsError

__all__ = ["SCHEMA_VERSION", "Bundle", "BundleContent", "write_atomically", "write_bundle"]

SCHEMA_VERSION = 1

_MODEL = "model.tflite"
_MANIFEST = "manifest.json"
_GOLDEN = "golden.npz"
_TFLITE_MAGIC = b"TFL3"


@dataclass(frozen=True)
class BundleContent:
    """What a new Bundle is made of.

    Attributes:
        model: the .tflite file's bytes.
        task: its value.
        precision: a name from `edgeheads.compression.quantize.schemes.SCHEMES`.
        contract: inputs, outputs and decoding.
        recipe: the resolved recipe as plain values.
        recipe_yaml: the same as text.
        baseline: the trivial predictor, from `Task.baseline`; None where no data was seen.
        golden: arrays of golden.npz: "images" [N, H, W, 3] uint8, "expected/<output>" as the file
            gives them, "reference/<output>" as the float model does.
        tools: {package: version} of what made the file.
    """

    model: bytes
    task: str
    precision: str
    contract: Contract
    recipe: Mapping[str, Any]
    recipe_yaml: str
    baseline: Mapping[str, Any] | None
    golden: Mapping[str, NDArray[Any]]
    tools: Mapping[str, str]


class Bundle:
    """A Bundle on disk, opened and checked: its model file is the one its manifest names.

    Raises:
        EdgeheadsError: no Bundle there, or a manifest this version cannot read.
        CheckFailedError: the model or the golden file is not what the manifest says.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.manifest = _read_manifest(self.folder)
        try:
            self.contract = Contract.from_json(self.manifest["contract"])
            self.task = str(self.manifest["task"])
            self.precision = str(self.manifest["precision"])
            self.recipe: dict[str, Any] = self.manifest["recipe"]
            self.baseline: dict[str, Any] | None = self.manifest["baseline"]
            hashes = dict(self.manifest["sha256"])
            self.sha256 = str(hashes[_MODEL])
        except (KeyError, TypeError, ValueError) as error:
            raise EdgeheadsError(
                f"{self.folder / _MANIFEST} is not a manifest of schema version {SCHEMA_VERSION} "
                f"({type(error).__name__}: {error}); convert the model again"
            ) from None
        for name, sha256 in hashes.items():
            self._require_unchanged(name, sha256)

    @property
    def model_path(self) -> Path:
        """The .tflite file."""
        return self.folder / _MODEL

    @property
    def model_bytes(self) -> int:
        """Its size."""
        return self.model_path.stat().st_size

    def golden(self) -> dict[str, NDArray[Any]]:
        """Return the arrays of golden.npz."""
        with np.load(self.folder / _GOLDEN, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}

    def save_measurement(self, name: str, content: Mapping[str, Any]) -> Path:
        """Write `name`.json, whole or not at all, with the hash of the file it measured."""
        path = self.folder / f"{name}.json"
        text = json.dumps({"model_sha256": self.sha256, **content}, indent=2, allow_nan=False)
        try:
            write_atomically(path, text + "\n")
        except OSError as error:
            raise _cannot_write(path, error) from None
        return path

    def read_measurement(self, name: str) -> dict[str, Any] | None:
        """Return `name`.json, or None if there is none or it measured another file."""
        path = self.folder / f"{name}.json"
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return None
        ours = isinstance(content, dict) and content.get("model_sha256") == self.sha256
        return content if ours else None

    def _require_unchanged(self, name: str, sha256: str) -> None:
        path = self.folder / name
        if Path(name).name != name or not path.is_file():
            raise CheckFailedError(f"{self.folder} has no {name}; convert the model again")
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != sha256:
            damage = (
                " and is not a whole TFLite file"
                if name == _MODEL and content[4:8] != _TFLITE_MAGIC
                else ""
            )
            raise CheckFailedError(
                f"{path} is not the file this Bundle was made with: expected SHA-256 "
                f"{sha256[:12]}..., received {hashlib.sha256(content).hexdigest()[:12]}..."
                f"{damage}; convert the model again"
            )


def write_bundle(folder: Path, content: BundleContent) -> Bundle:
    """Write a Bundle, replacing one that is there, and open it.

    It is put together in a hidden folder beside its place and renamed: a killed run leaves the
    old Bundle or the new one, never half of either.

    Raises:
        EdgeheadsError: the folder cannot be written, or is something other than a Bundle.
    """
    # Other programs have a manifest.json too; what lies beside it tells them apart.
    if folder.exists() and not all((folder / name).is_file() for name in (_MANIFEST, _MODEL)):
        raise EdgeheadsError(
            f"{folder} exists and is not a Bundle; remove it, or choose another folder with --out"
        )
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    except OSError as error:
        raise _cannot_write(folder, error) from None
    try:
        _fill(draft, content)
        draft.chmod(0o755)
        _swap(draft, folder)
    except OSError as error:
        raise _cannot_write(folder, error) from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return Bundle(folder)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file, text as UTF-8, whole or not at all; make it last through a power cut."""
    handle, draft = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        Path(draft).chmod(0o644)
        Path(draft).replace(path)
    except BaseException:
        with suppress(OSError):
            Path(draft).unlink()
        raise


def _fill(draft: Path, content: BundleContent) -> None:
    (draft / _MODEL).write_bytes(content.model)
    with (draft / _GOLDEN).open("wb") as file:
        arrays: dict[str, Any] = dict(content.golden)
        np.savez_compressed(file, **arrays)
    (draft / "labels.txt").write_text(
        "".join(f"{label}\n" for label in content.contract.labels), encoding="utf-8"
    )
    (draft / "recipe.yaml").write_text(content.recipe_yaml, encoding="utf-8")
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "task": content.task,
        "precision": content.precision,
        "sha256": {
            name: hashlib.sha256((draft / name).read_bytes()).hexdigest()
            for name in (_MODEL, _GOLDEN, "labels.txt", "recipe.yaml")
        },
        "model_size_bytes": len(content.model),
        "contract": content.contract.to_json(),
        "baseline": content.baseline,
        "tools": dict(content.tools),
        "recipe": dict(content.recipe),
    }
    # Last, so that a folder with a manifest is a whole Bundle.
    write_atomically(draft / _MANIFEST, json.dumps(manifest, indent=2, allow_nan=False) + "\n")


def _swap(draft: Path, folder: Path) -> None:
    if not folder.exists():
        draft.replace(folder)
        return
    retired = Path(tempfile.mkdtemp(prefix=f".{folder.name}-old-", dir=folder.parent))
    folder.replace(retired)
    try:
        draft.replace(folder)
    except BaseException:
        retired.replace(folder)
        raise
    shutil.rmtree(retired, ignore_errors=True)


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / _MANIFEST
    if not path.is_file():
        raise EdgeheadsError(
            f"{folder} is not a Bundle: it has no {_MANIFEST}; "
            "make one with: edgeheads convert --task depth"
        )
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        version = manifest["schema_version"]
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise EdgeheadsError(
            f"{path} is not a manifest ({error}); convert the model again"
        ) from None
    if version != SCHEMA_VERSION:
        raise EdgeheadsError(
            f"{path} has schema version {version!r}, this edgeheads reads {SCHEMA_VERSION}; "
            "install the edgeheads that wrote it, or convert the model again"
        )
    return manifest


def _cannot_write(path: Path, error: OSError) -> EdgeheadsError:
    return EdgeheadsError(
        f"cannot write {path} ({error.strerror or error}); choose another folder with --out"
    )
