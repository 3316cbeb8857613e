"""Weights for a network: downloaded, from a file, or random."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import h5py
import keras
import numpy as np
from numpy.typing import NDArray

from edgeheads.errors import EdgeheadsError

__all__ = ["load_weights", "one_line", "read_weights", "require_imagenet"]

Arrays = dict[str, NDArray[np.generic]]

Model = TypeVar("Model", bound=keras.Model)


def load_weights(
    network: Callable[[str | None], keras.Model],
    weights: str | Path | None,
    to_backbone: Callable[[keras.Model], Model],
) -> Model:
    """Return `to_backbone(network(...))` with its weights filled in.

    A file may hold either of the two: the stock network, as Keras distributes it, or the backbone,
    which has no layers above its features and may have been adapted. Its layer names tell which.

    Args:
        network: a constructor: given "imagenet" it downloads, given None it starts at random.
        weights: "imagenet", a file (`.npz` of arrays by variable path, `.keras`, `.h5`,
            `.weights.h5`), or None.
        to_backbone: makes the backbone of what `network` returns; it may be called twice.

    Raises:
        EdgeheadsError: a download that fails; a file that is missing, unreadable, holds NaN, or
            whose arrays do not fit the network, all of them.
    """
    if weights is None:
        return to_backbone(network(None))
    if weights == "imagenet":
        return to_backbone(_download(network))
    path = Path(weights)
    names = _Contents(path).layers
    stock = network(None)
    backbone = to_backbone(stock)
    if _same(names, _layer_names(backbone)):
        read_weights(backbone, path)
        return backbone
    read_weights(stock, path)
    return to_backbone(stock)


def read_weights(model: keras.Model, path: Path) -> None:
    """Fill a model with the arrays of a file that holds all of them and no others.

    Raises:
        EdgeheadsError: see `load_weights`.
    """
    contents = _Contents(path)
    if contents.arrays is None:
        _load_h5(model, path, contents.layers)
    else:
        _assign(model, contents.arrays, path)
    for variable in model.weights:
        if not np.isfinite(keras.ops.convert_to_numpy(variable)).all():
            raise EdgeheadsError(
                f"weights file {path} holds NaN or infinite values in {variable.path}; "
                "fetch it again"
            )


def require_imagenet(name: str, width: float, widths: Collection[float]) -> None:
    """Refuse "imagenet" where there are no such weights.

    Args:
        name: the backbone.
        width: its channel multiplier.
        widths: the multipliers with ImageNet weights; none if the network has no such weights.
    """
    if width in widths:
        return
    there_are = f"; widths with such weights: {', '.join(map(str, widths))}" if widths else ""
    raise EdgeheadsError(
        f"{name} has no ImageNet weights at width {width}{there_are}; give a local file with "
        "--weights FILE, or start at random with --weights none"
    )


def one_line(error: Exception) -> str:
    """Return an error's text without line breaks, 200 characters at most."""
    text = " ".join(str(error).split())
    return text if len(text) <= 200 else f"{text[:200]}..."


def _download(network: Callable[[str | None], keras.Model]) -> keras.Model:
    try:
        with warnings.catch_warnings():
            # "input_shape is not 224": no weight depends on the size of the image.
            warnings.filterwarnings("ignore", message=".*input_shape.*")
            return network("imagenet")
    except Exception as error:  # Keras raises bare Exception when a download fails.
        raise EdgeheadsError(
            f"ImageNet weights could not be downloaded ({one_line(error)}); check the network, "
            "or give a local file with --weights FILE, or start at random with --weights none"
        ) from None


class _Contents:
    """What a weights file holds.

    Attributes:
        layers: the names of the layers it has weights of.
        arrays: by variable path; None for HDF5, which Keras itself must read: it stores a layer's
            arrays by their order.
    """

    layers: set[str]
    arrays: Arrays | None

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise EdgeheadsError(
                f"weights file {path} does not exist; give a .npz, .keras or .h5 file, "
                "'imagenet', or 'none' for a random start"
            )
        if path.suffix == ".h5":
            self.arrays, self.layers = None, _h5_layers(path)
            return
        if path.suffix == ".npz":
            self.arrays = _read_npz(path)
        elif path.suffix == ".keras":
            self.arrays = _read_keras(path)
        else:
            raise EdgeheadsError(
                f"weights file {path} must end in .npz, .keras, .h5 or .weights.h5, "
                f"received {path.suffix or 'no suffix'!r}"
            )
        self.layers = {name.split("/")[0] for name in self.arrays}


def _read_npz(path: Path) -> Arrays:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {_current_name(name): archive[name] for name in archive.files}
    except Exception as error:  # zipfile, zlib, struct and NumPy each have their own
        raise EdgeheadsError(
            f"weights file {path} is not a readable .npz archive ({one_line(error)})"
        ) from None


def _read_keras(path: Path) -> Arrays:
    try:
        source = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # zipfile, h5py, json and Keras each have their own
        raise EdgeheadsError(
            f"weights file {path} is not a readable .keras file ({one_line(error)})"
        ) from None
    return {name: keras.ops.convert_to_numpy(x) for name, x in _variables(source).items()}


def _h5_layers(path: Path) -> set[str]:
    """Return the names of the layers a `.h5` or `.weights.h5` file has weights of."""
    try:
        with h5py.File(path, "r") as file:
            legacy = file.get("model_weights", file)
            if "layer_names" in legacy.attrs:
                names = [_text(name) for name in legacy.attrs["layer_names"]]
                found = {name for name in names if len(legacy[name].attrs["weight_names"])}
            else:
                # A layer's group: "vars", named after the layer, and groups of its sublayers.
                found = {
                    _text(group["vars"].attrs.get("name", ""))
                    for group in file["layers"].values()
                    if _holds_arrays(group)
                }
    except Exception as error:  # h5py raises OSError, KeyError, RuntimeError
        raise EdgeheadsError(
            f"weights file {path} is not a readable Keras .h5 file ({one_line(error)})"
        ) from None
    if "" in found:
        # Without names, only the order of the layers is known: what fits may still be wrong.
        raise EdgeheadsError(
            f"weights file {path} names no layers, as Keras did before version 3.10; "
            "save the model as .keras instead"
        )
    return found


def _text(name: str | bytes) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)


def _holds_arrays(group: h5py.Group) -> bool:
    return any(isinstance(x, h5py.Dataset) or _holds_arrays(x) for x in group.values())


def _current_name(name: str) -> str:
    """Keras called the weights of a depthwise layer `depthwise_kernel` before it said `kernel`."""
    return name.replace("/depthwise_kernel", "/kernel")


def _variables(model: keras.Model) -> dict[str, keras.Variable]:
    return {_current_name(variable.path): variable for variable in model.weights}


def _layer_names(model: keras.Model) -> set[str]:
    return {layer.name for layer in model.layers if layer.weights}


def _ranked(names: Iterable[str]) -> dict[str, str]:
    """Return {name: the same with the numbers of like-named neighbours replaced by their rank}.

    Keras counts the layers that nobody named through the whole process: what is "conv2d" here
    may be "conv2d_10" in the file, but the order of neighbours stays.
    """
    numbers: dict[tuple[str, str], set[int]] = defaultdict(set)
    split = {name: [_stem(part) for part in name.split("/")] for name in names}

    def places(name: str) -> Iterator[tuple[tuple[str, str], int]]:
        parts = name.split("/")
        for depth, (stem, number) in enumerate(split[name]):
            yield ("/".join(parts[:depth]), stem), number

    for name in split:
        for place, number in places(name):
            numbers[place].add(number)
    return {
        name: "/".join(
            f"{place[1]}#{sorted(numbers[place]).index(number)}" for place, number in places(name)
        )
        for name in split
    }


def _stem(name: str) -> tuple[str, int]:
    stem, _, number = name.rpartition("_")
    return (stem, int(number)) if stem and number.isdecimal() else (name, -1)


def _same(names: Collection[str], others: Collection[str]) -> bool:
    """Whether two sets of names are equal but for the numbers Keras gives."""
    return set(names) == set(others) or set(_ranked(names).values()) == set(
        _ranked(others).values()
    )


def _assign(model: keras.Model, arrays: Arrays, path: Path) -> None:
    wanted = _variables(model)
    _require_same_names("weights", set(wanted), set(arrays), model, path)
    if set(wanted) != set(arrays):
        theirs = {rank: name for name, rank in _ranked(arrays).items()}
        arrays = {name: arrays[theirs[rank]] for name, rank in _ranked(wanted).items()}
    for name, variable in wanted.items():
        if arrays[name].shape != tuple(variable.shape):
            raise EdgeheadsError(
                f"weights file {path} does not fit {model.name}: {name} must have shape "
                f"{tuple(variable.shape)}, received {arrays[name].shape}; "
                "check the backbone's width"
            )
    for name, variable in wanted.items():
        variable.assign(arrays[name])


def _load_h5(model: keras.Model, path: Path, layers: set[str]) -> None:
    if path.name.endswith(".weights.h5"):
        # Keras does not mind layers that only the file has. The older .h5 is checked by Keras,
        # and its layers may have been called otherwise.
        _require_same_names("layers", _layer_names(model), layers, model, path)
    try:
        with warnings.catch_warnings():
            # Keras searches its own bookkeeping too before it reports what does not fit.
            warnings.filterwarnings("ignore", message="Skipping nested container")
            model.load_weights(path)
    except Exception as error:  # h5py and Keras each have their own
        raise EdgeheadsError(
            f"weights file {path} does not fit {model.name} ({one_line(error)})"
        ) from None


def _require_same_names(
    kind: str, wanted: set[str], found: set[str], model: keras.Model, path: Path
) -> None:
    if not _same(wanted, found):
        missing, unknown = sorted(wanted - found), sorted(found - wanted)
        raise EdgeheadsError(
            f"weights file {path} does not fit {model.name}: {len(missing)} of {len(wanted)} "
            f"{kind} are missing {missing[:3]}, {len(unknown)} are unknown {unknown[:3]}; "
            "check the backbone's name and width"
        )
