"""Models from files of any Keras; those of Keras 2 become functional models of Keras 3."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np

from edgeheads.errors import EdgeheadsError, MissingDependencyError

__all__ = ["load_any", "load_legacy"]

# Options of Keras 2 that Keras 3 no longer has, and which say nothing at these values.
_DROPPED: dict[str, tuple[Any, ...]] = {
    "batch_input_shape": (),
    "groups": (1,),
    "implementation": (),
    "ragged": (False,),
    "sparse": (False,),
    "noise_shape": (None,),
    "renorm": (False,),
    "virtual_batch_size": (None,),
    "fused": (None, True, False),
    "time_major": (False,),
}

# What `x + y` and the like left in a graph of Keras 2: of two tensors, of a tensor x and a number
# c (scale and offset of x), of one tensor.
_OF_TWO: dict[str, Callable[..., Any]] = {
    "add": keras.layers.Add,
    "subtract": keras.layers.Subtract,
    "multiply": keras.layers.Multiply,
    "maximum": keras.layers.Maximum,
    "minimum": keras.layers.Minimum,
}
_WITH_NUMBER: dict[str, Callable[[float], tuple[float, float]]] = {
    "add": lambda c: (1.0, c),
    "subtract": lambda c: (1.0, -c),
    "multiply": lambda c: (c, 0.0),
    "truediv": lambda c: (1.0 / c, 0.0),
    "divide": lambda c: (1.0 / c, 0.0),
}
_OF_ONE = ("relu", "relu6", "sigmoid", "silu", "tanh")

_CONSTANT = "_CONSTANT_VALUE"

_FIRST_WITHOUT_TF_KERAS = 3

# What a file calls objects that bring Python code of their own.
_CODE = {"Lambda", "__lambda__"}


def load_any(path: Path) -> keras.Model:
    """Return the model of a `.keras` file, or of a `.h5` file of Keras 3 or Keras 2.

    Raises:
        EdgeheadsError: no such file, or one that cannot be loaded.
        MissingDependencyError: tf-keras is not installed, which Keras 2's files need.
    """
    if not path.is_file():
        raise EdgeheadsError(f"model {path} does not exist; give a .keras or .h5 file")
    if path.suffix in (".h5", ".hdf5") and _keras_version(path) < _FIRST_WITHOUT_TF_KERAS:
        return load_legacy(path)
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # zipfile, h5py, json and Keras each have their own
        raise EdgeheadsError(
            f"model {path} cannot be loaded ({' '.join(str(error).split())[:200]}); expected a "
            ".keras file of stock layers, or a .h5 file"
        ) from None


def _keras_version(path: Path) -> int:
    """Return the number before the first dot of the Keras that saved a `.h5` model.

    Raises:
        EdgeheadsError: the file holds no model, or one with Python code: safe mode, which refuses
            that in `.keras` files, does not look into `.h5` files in all versions of Keras.
    """
    try:
        with h5py.File(path) as file:
            version, config = file.attrs.get("keras_version", "2"), file.attrs.get("model_config")
            inside = sorted(file)
    except OSError as error:
        raise EdgeheadsError(
            f"model {path} is no HDF5 file ({' '.join(str(error).split())[:150]}); expected a "
            ".keras or .h5 file"
        ) from None
    if config is None:
        raise EdgeheadsError(
            f"model {path} holds no network, but {', '.join(inside[:5]) or 'nothing'}: it may be "
            'weights alone; save the whole model, with model.save("model.keras")'
        )
    classes: list[Any] = []
    # The hook sees every object, those inside others included.
    json.loads(config, object_hook=lambda one: classes.append(one.get("class_name")))
    if _CODE & set(classes):
        raise EdgeheadsError(
            f"model {path} has a Lambda layer, which is Python code that would run; replace it by "
            "stock layers, and save the model again"
        )
    first = str(version).partition(".")[0]
    return int(first) if first.isdigit() else 2


def load_legacy(path: Path) -> keras.Model:
    """Return a `.h5` model of Keras 2 as a functional model of Keras 3.

    tf-keras loads it; its layers are rebuilt, get its weights, and must give its outputs on
    random inputs.

    Raises:
        MissingDependencyError: tf-keras is not installed.
        EdgeheadsError: tf-keras cannot load it; a layer that Keras 3 does not have; a model that
            computes something else once it is rebuilt.
    """
    try:
        import tf_keras
    except ImportError:
        raise MissingDependencyError(
            "tf-keras", "legacy", "loading a .h5 model of Keras 2"
        ) from None
    try:
        old = tf_keras.models.load_model(path, compile=False)
    except Exception as error:  # h5py, json and tf-keras each have their own
        raise EdgeheadsError(
            f"model {path} cannot be loaded by tf-keras ({' '.join(str(error).split())[:200]}); "
            "expected a whole model that was saved by Keras 2 as .h5, not its weights alone"
        ) from None
    if isinstance(old, tf_keras.Sequential):
        old = tf_keras.Model(old.inputs, old.outputs, name=old.name)
    config = old.get_config() if hasattr(old, "_nodes_by_depth") else {}
    if "layers" not in config:
        raise EdgeheadsError(f"model {path} must be functional, received {type(old).__name__}")
    model = _Rebuilt(old, config, str(path)).model()
    _require_same(old, model, str(path))
    return model


class _Rebuilt:
    """The graph of a functional model of Keras 2, laid again."""

    def __init__(self, old: Any, config: Mapping[str, Any], where: str) -> None:
        self._old = old
        self._config = config
        self._where = where
        self._layers: dict[str, Any] = {}
        # (layer, call) -> tensor
        self._tensors: dict[tuple[str, int], Any] = {}

    def model(self) -> keras.Model:
        """Return the model with its weights."""
        waiting = [
            (one, call, node)
            for one in self._config["layers"]
            for call, node in enumerate(one["inbound_nodes"] or [None])
        ]
        while waiting:
            ready = [job for job in waiting if self._known(job[2])]
            if not ready:
                raise EdgeheadsError(f"model {self._where} has a graph that feeds itself")
            for one, call, node in ready:
                self._tensors[one["name"], call] = self._lay(one, node)
            waiting = [job for job in waiting if job not in ready]
        inputs = [self._end(one) for one in _ends(self._config["input_layers"])]
        outputs = [self._end(one) for one in _ends(self._config["output_layers"])]
        model = keras.Model(
            inputs[0] if len(inputs) == 1 else inputs,
            outputs[0] if len(outputs) == 1 else outputs,
            name=self._config["name"],
        )
        for name, layer in self._layers.items():
            if isinstance(layer, keras.layers.Layer) and layer.weights:
                old = self._old.get_layer(name)
                layer.set_weights(old.get_weights())
                layer.trainable = old.trainable
        return model

    def _known(self, node: Any) -> bool:
        return all(one in self._tensors for one in _references(node))

    def _end(self, reference: list[Any]) -> Any:
        return self._tensors[reference[0], reference[1]]

    def _lay(self, one: Mapping[str, Any], node: Any) -> Any:
        # Keras 3 allows no slash in a layer's name.
        name = one["name"].replace("/", "_")
        kind, config = one["class_name"], {**one["config"], "name": name}
        if kind == "InputLayer":
            shape = config.get("batch_input_shape") or config.get("batch_shape")
            return keras.Input(batch_shape=shape, dtype=config.get("dtype"), name=name)
        if kind == "TFOpLambda":
            return self._function(name, config["function"], node)
        layer = self._layers.setdefault(one["name"], None) or self._make(kind, config)
        self._layers[one["name"]] = layer
        arguments = [self._tensors[reference] for reference in _references(node)]
        return layer(arguments if _is_list(node) else arguments[0])

    def _function(self, name: str, function: str, node: Any) -> Any:
        """Lay the layer that does what a function of TensorFlow did."""
        source, call, _, keywords = node[0] if isinstance(node[0], list) else node
        others = [value for key, value in keywords.items() if key != "name" and value is not None]
        kind = function.rpartition(".")[2]
        known = source != _CONSTANT and len(others) <= 1
        if known and kind in _OF_ONE and not others:
            layer = keras.layers.Activation(kind, name=name)
            return layer(self._tensors[source, call])
        if known and others and isinstance(others[0], list) and kind in _OF_TWO:
            both = [self._tensors[source, call], self._tensors[others[0][0], others[0][1]]]
            return _OF_TWO[kind](name=name)(both)
        if known and others and isinstance(others[0], (int, float)) and kind in _WITH_NUMBER:
            scale, offset = _WITH_NUMBER[kind](others[0])
            return keras.layers.Rescaling(scale, offset, name=name)(self._tensors[source, call])
        raise EdgeheadsError(
            f"model {self._where} calls tf.{function} between its layers in a way that is not "
            f"known here; known: {', '.join(_OF_TWO)} of two tensors, "
            f"{', '.join(_WITH_NUMBER)} with a number, {', '.join(_OF_ONE)}"
        )

    def _make(self, kind: str, config: dict[str, Any]) -> keras.layers.Layer:
        layer_class = getattr(keras.layers, kind, None)
        if layer_class is None:
            raise EdgeheadsError(
                f"model {self._where} has the layer {config.get('name')!r} of type {kind}, which "
                "Keras 3 does not have; replace it before saving the model"
            )
        known = inspect.signature(layer_class.__init__).parameters
        for name, harmless in _DROPPED.items():
            if name in config and name not in known:
                value = config.pop(name)
                if harmless and value not in harmless:
                    raise EdgeheadsError(
                        f"model {self._where}: layer {config['name']!r} ({kind}) has "
                        f"{name}={value!r}, which Keras 3 does not have"
                    )
        if isinstance(config.get("dtype"), dict):
            config["dtype"] = config["dtype"]["config"]["name"]
        if isinstance(config.get("axis"), (list, tuple)) and len(config["axis"]) == 1:
            config["axis"] = config["axis"][0]
        try:
            return layer_class.from_config(config)
        except Exception as error:  # whatever the constructor of a layer raises
            raise EdgeheadsError(
                f"model {self._where}: layer {config['name']!r} ({kind}) cannot be made in Keras 3 "
                f"({' '.join(str(error).split())[:150]})"
            ) from None


def _references(node: Any) -> list[tuple[str, int]]:
    """Return the (layer, call) that a node takes, those in keyword arguments included."""
    if not node:
        return []
    found = []
    for source in node if isinstance(node[0], list) else [node]:
        if source[0] != _CONSTANT:
            found.append((source[0], source[1]))
        keywords = source[3] if len(source) > 3 else {}
        for value in keywords.values():
            if isinstance(value, list) and len(value) == 3 and isinstance(value[0], str):
                found.append((value[0], value[1]))
    return found


def _is_list(node: Any) -> bool:
    return isinstance(node[0], list) and len(node) > 1


def _ends(references: list[Any]) -> list[list[Any]]:
    return references if references and isinstance(references[0], list) else [references]


def _require_same(old: Any, model: keras.Model, where: str) -> None:
    rng = np.random.default_rng(0)
    inputs = [
        rng.uniform(0, 1, [2, *(side or 32 for side in tensor.shape[1:])]).astype(np.float32)
        for tensor in model.inputs
    ]
    argument = inputs[0] if len(inputs) == 1 else inputs
    expected = keras.tree.flatten(old.predict(argument, verbose=0))
    found = keras.tree.flatten(model.predict(argument, verbose=0))
    for before, after in zip(expected, found, strict=True):
        scale = max(1e-3, float(np.abs(before).max()))
        difference = float(np.abs(before - after).max()) / scale
        if not difference <= 1e-3:
            raise EdgeheadsError(
                f"model {where} computes something else in Keras 3: its outputs differ by "
                f"{difference:.1%} of their range on random inputs; it cannot be used here"
            )
