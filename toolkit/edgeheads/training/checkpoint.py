"""The state of an unfinished training, in one file that is replaced as a whole."""

from __future__ import annotations

import json
import os
import shutil
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeheads.data.sample import Sample
from edgeheads.errors import EdgeheadsError
from edgeheads.tasks.base import Array

__all__ = ["Checkpoint", "State", "fingerprint"]

_VERSION = 1


@dataclass(frozen=True)
class State:
    """Everything that the rest of a training depends on.

    Attributes:
        arrays: {group: arrays}: weights, optimizer, averages, and the best weights so far.
        facts: plain JSON values: what happened so far.
    """

    arrays: Mapping[str, Sequence[Array]]
    facts: Mapping[str, Any]


class Checkpoint:
    """A folder that holds the state of one training, and the recipe it belongs to.

    Args:
        folder: of the run; the state lies in its subfolder `checkpoint`.
        run: what must be the same for a training to go on: plain JSON values.
    """

    def __init__(self, folder: Path, run: Mapping[str, Any]) -> None:
        self.folder = folder / "checkpoint"
        self._path = self.folder / "state.npz"
        # As JSON reads it back: lists where there were tuples.
        self._run = json.loads(json.dumps(run))

    @property
    def exists(self) -> bool:
        """Whether there is a state to go on from."""
        return self._path.is_file()

    def save(self, state: State) -> None:
        """Write the state whole or not at all, and make it last through a power cut."""
        self.folder.mkdir(exist_ok=True)
        facts = {"version": _VERSION, "run": self._run, "facts": state.facts}
        arrays: dict[str, Array] = {
            f"{group}/{index}": array
            for group, values in state.arrays.items()
            for index, array in enumerate(values)
        }
        draft = self.folder / ".state-draft.npz"
        with draft.open("wb") as file:
            np.savez(file, facts=np.array(json.dumps(facts)), **arrays)  # type: ignore[arg-type]
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self._path)

    def load(self) -> State:
        """Return the state.

        Raises:
            EdgeheadsError: there is none, it cannot be read, or it is another training's; the
                text names the first field that differs.
        """
        if not self.exists:
            raise EdgeheadsError(
                f"{self.folder} holds no checkpoint to resume from; run without --resume"
            )
        try:
            with np.load(self._path, allow_pickle=False) as file:
                content = json.loads(str(file["facts"]))
                arrays: dict[str, list[Array]] = {}
                for name in file.files:
                    group, _, index = name.partition("/")
                    if index:
                        arrays.setdefault(group, []).append(file[name])
            version, run, facts = content["version"], content["run"], content["facts"]
        except Exception as error:  # zipfile, NumPy and json each have their own
            raise EdgeheadsError(
                f"checkpoint {self._path} cannot be read ({' '.join(str(error).split())[:120]}); "
                f"delete {self.folder} and run without --resume"
            ) from None
        if version != _VERSION:
            raise EdgeheadsError(
                f"checkpoint {self._path} has version {version}, this edgeheads reads {_VERSION}; "
                f"delete {self.folder} and run without --resume"
            )
        self._require_same(run)
        return State(arrays, facts)

    def remove(self) -> None:
        """Delete the state: the training is over."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _require_same(self, run: Mapping[str, Any]) -> None:
        then, now = _flat(run), _flat(self._run)
        for field in {**then, **now}:
            if then.get(field) != now.get(field):
                raise EdgeheadsError(
                    f"checkpoint {self._path} is of another training: {field} was "
                    f"{then.get(field)!r}, now it is {now.get(field)!r}; resume with the same "
                    "recipe, or choose another folder with --out"
                )


def fingerprint(samples: Sequence[Sample]) -> dict[str, Any]:
    """Return what tells one training set from another: how many samples, and a checksum of them."""
    checksum = 0
    for sample in samples:
        checksum = zlib.crc32(sample.image.tobytes(), checksum)
    return {"samples": len(samples), "images_crc32": checksum}


def _flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
