"""Weights for a network: downloaded, from a file, or random."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
from numpy.typing import NDArray

from edgeheads.errors import EdgeheadsError

__all__ = ["load_weights"]


def load_weights(
    network: Callable[[str | None], keras.Model], weights: str | Path | None
) -> keras.Model:
    """Return `network(...)` with its weights filled in.

    Args:
        network: a keras.applications constructor: given "imagenet" it downloads, given None it
            starts at random.
        weights: "imagenet", a file (`.npz` of layer/weight arrays, `.keras`, `.h5`,
            `.weights.h5`), or None.

    Raises:
        EdgeheadsError: a download that fails; a file that is missing, unreadable, holds NaN, or
            whose arrays do not fit the network, all of them.
    """
    if weights is None:
        return network(None)
    if weights == "imagenet":
        return _download(network)
    path = Path(weights)
    if not path.is_file():
        raise EdgeheadsError(
            f"weights file {path} does not exist; give a .npz, .keras or .h5 file, "
            "'imagenet', or 'none' for a random start"
        )
    model = network(None)
    if path.suffix == ".npz":
        _assign(model, _read_npz(path), path)
    elif path.name.endswith((".weights.h5", ".h5", ".keras")):
        _load_keras(model, path)
    else:
        raise EdgeheadsError(
            f"weights file {path} must end in .npz, .keras, .h5 or .weights.h5, "
            f"received {path.suffix or 'no suffix'!r}"
        )
    _require_finite(model, path)
    return model


def _download(network: Callable[[str | None], keras.Model]) -> keras.Model:
    try:
        return network("imagenet")
    except Exception as error:  # Keras raises bare Exception when a download fails.
        raise EdgeheadsError(
            f"ImageNet weights could not be downloaded ({_one_line(error)}); check the network, "
            "or give a local file with --weights FILE, or start at random with --weights none"
        ) from None


def _read_npz(path: Path) -> dict[str, NDArray[np.generic]]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {_current_name(name): archive[name] for name in archive.files}
    except Exception as error:  # zipfile, zlib, struct and NumPy each have their own
        raise EdgeheadsError(
            f"weights file {path} is not a readable .npz archive ({_one_line(error)})"
        ) from None


def _current_name(name: str) -> str:
    """Keras called the weights of a depthwise layer `depthwise_kernel` before it said `kernel`."""
    return name.replace("/depthwise_kernel", "/kernel")


def _assign(model: keras.Model, arrays: dict[str, NDArray[np.generic]], path: Path) -> None:
    wanted = {
        _current_name(f"{layer.name}/{variable.name}"): variable
        for layer in model.layers
        for variable in layer.weights
    }
    missing = sorted(set(wanted) - set(arrays))
    unknown = sorted(set(arrays) - set(wanted))
    if missing or unknown:
        raise EdgeheadsError(
            f"weights file {path} does not fit {model.name}: {len(missing)} of {len(wanted)} "
            f"weights are missing {missing[:3]}, {len(unknown)} are unknown {unknown[:3]}; "
            "check the backbone's name and width"
        )
    for name, variable in wanted.items():
        if arrays[name].shape != tuple(variable.shape):
            raise EdgeheadsError(
                f"weights file {path} does not fit {model.name}: {name} must have shape "
                f"{tuple(variable.shape)}, received {arrays[name].shape}; "
                "check the backbone's width"
            )
    for name, variable in wanted.items():
        variable.assign(arrays[name])


def _load_keras(model: keras.Model, path: Path) -> None:
    try:
        if path.suffix == ".keras":
            source = keras.saving.load_model(path, compile=False, safe_mode=True)
            model.set_weights(source.get_weights())
        else:
            model.load_weights(path)
    except Exception as error:  # h5py, zipfile and Keras each have their own
        raise EdgeheadsError(
            f"weights file {path} does not fit {model.name} ({_one_line(error)})"
        ) from None


def _require_finite(model: keras.Model, path: Path) -> None:
    for variable in model.weights:
        if not np.isfinite(keras.ops.convert_to_numpy(variable)).all():
            raise EdgeheadsError(
                f"weights file {path} holds NaN or infinite values in {variable.path}; "
                "fetch it again"
            )


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 200 else f"{text[:200]}..."
