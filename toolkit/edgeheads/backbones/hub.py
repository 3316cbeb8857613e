"""Networks from KerasHub, an optional extra: built from their architecture, or from a preset.

The saved graph of EfficientNet-Lite and CSPNet is of stock layers. The other families have layers
of KerasHub's own, so that a file of theirs loads only where keras_hub is installed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import keras

from edgeheads.backbones.applications import last_layers, require_width
from edgeheads.backbones.base import Backbone, name_levels, require_sides
from edgeheads.backbones.hub_mobilenet import MOBILENETS
from edgeheads.backbones.hub_networks import NETWORKS, HubNetwork
from edgeheads.backbones.weights import load_weights, one_line, require_imagenet
from edgeheads.errors import EdgeheadsError, MissingDependencyError

__all__ = ["create", "flat_or_preset"]

_EFFICIENTNET_STAGES = {"P1": 1, "P2": 2, "P3": 3, "P4": 5, "P5": 7}

_WEIGHTS_SUFFIXES = (".npz", ".keras", ".h5")


def create(
    name: str, input_shape: tuple[int, int, int], *, width: float, weights: str | Path | None
) -> Backbone:
    """Return a network of KerasHub; its sizes are names, there is no other width.

    Args:
        weights: None, "imagenet", a weights file, or a preset: its name, a handle such as
            "hf://..." or "kaggle://...", or the folder that `save_to_preset` wrote.

    Raises:
        MissingDependencyError: keras_hub is not installed.
        EdgeheadsError: see `create_backbone`.
    """
    network = {**NETWORKS, **MOBILENETS}[name]
    require_width(name, width, (1.0,))
    require_sides(name, input_shape, network.multiple)
    if network.square and input_shape[0] != input_shape[1]:
        raise EdgeheadsError(f"{name}: the image must be square, received {input_shape}")
    hub_class = _hub_model(network.hub_class, f"backbone {name}")
    weights = _resolve_imagenet(name, weights, network.imagenet)
    # KerasHub derives the names of layers, and with them those of weights, from the model's.
    options = {network.shape_argument: input_shape, "name": name}

    def build(_: str | None = None) -> keras.Model:
        return hub_class(**network.parameters, **options)

    def to_backbone(model: keras.Model) -> Backbone:
        return _to_backbone(name, network, model)

    if not _is_preset(weights):
        return load_weights(build, weights, to_backbone)
    backbone = to_backbone(_from_preset(hub_class, str(weights), **options))
    _require_same_architecture(backbone, to_backbone(build()), str(weights))
    return backbone


def _hub_model(hub_class: str, purpose: str) -> Any:
    """Return a class of `keras_hub.models`.

    Args:
        hub_class: its name.
        purpose: what needs it, for the error.

    Raises:
        MissingDependencyError: keras_hub is not installed.
        EdgeheadsError: the installed version does not have the class.
    """
    try:
        models = import_module("keras_hub.models")
    except ImportError:
        raise MissingDependencyError("keras-hub", "hub", purpose) from None
    if not hasattr(models, hub_class):
        version = import_module("keras_hub").__version__
        raise EdgeheadsError(
            f"{purpose} needs {hub_class}, which keras-hub {version} does not have; "
            "run: pip install --upgrade keras-hub"
        )
    return getattr(models, hub_class)


def flat_or_preset(
    name: str,
    weights: str | Path | None,
    *,
    build: Callable[[], Backbone],
    hub_class: str,
    copy: Callable[[keras.Model, Backbone, str], None],
    options: Mapping[str, Any] | None = None,
    imagenet: str | None = None,
) -> Backbone:
    """Return a network that is written here, its weights from a file or a preset of KerasHub.

    Args:
        name: the backbone.
        weights: see `create`.
        build: starts the network at random.
        hub_class: the class of `keras_hub.models` that has the presets.
        copy: (network of the preset, backbone, preset) -> fills the backbone.
        options: replace what the preset says.
        imagenet: the preset that "imagenet" stands for, if there is one.
    """
    weights = _resolve_imagenet(name, weights, imagenet)
    if not _is_preset(weights):
        return load_weights(lambda _: build(), weights, lambda network: network)
    preset = str(weights)
    backbone = build()
    hub = _hub_model(hub_class, f"preset {preset!r}")
    copy(_from_preset(hub, preset, **(options or {})), backbone, preset)
    return backbone


def _resolve_imagenet(
    name: str, weights: str | Path | None, preset: str | None
) -> str | Path | None:
    if weights == "imagenet":
        if preset is None:
            require_imagenet(name, 1.0, ())
        return preset
    return weights


def _is_preset(weights: str | Path | None) -> bool:
    """Whether `weights` is meant as a preset of KerasHub: neither None nor a weights file."""
    return weights is not None and Path(weights).suffix not in _WEIGHTS_SUFFIXES


def _to_backbone(name: str, network: HubNetwork, model: keras.Model) -> Backbone:
    image = model.inputs[0]
    strides = None
    if network.features == "tokens":
        outputs, strides = {"tokens": model.output}, {"tokens": network.multiple}
    elif network.features == "blocks":
        names = last_layers(_EFFICIENTNET_STAGES, model)
        outputs = {level: model.get_layer(layer).output for level, layer in names.items()}
    elif network.features == "pyramid":
        outputs = name_levels(image, list(model.pyramid_outputs.values()))
    elif network.features == "stages":
        stages = [stage for stage in model.output if stage.startswith("stage")]
        outputs = name_levels(image, [model.output[stage] for stage in stages])
    else:
        # A chain of blocks: the last of each stride, less the adapter above them. The stem alone
        # has stride 2.
        chain = [layer.output for layer in model.layers[1:] if layer.name != "msfa"]
        outputs = name_levels(image, list({x.shape[1:3]: x for x in chain}.values()))
    return Backbone(image, outputs, scaling=network.scaling, strides=strides, name=name)


def _from_preset(hub_class: Any, preset: str, **options: Any) -> keras.Model:
    """Return the network of a preset, with its weights; `options` replace what it says.

    Raises:
        EdgeheadsError: there is no such preset, or it cannot be fetched or read.
    """
    try:
        return hub_class.from_preset(preset, **options)
    except Exception as error:  # kagglehub, huggingface_hub, h5py and Keras each have their own
        known = ", ".join(sorted(hub_class.presets))
        raise EdgeheadsError(
            f"preset {preset!r} of {hub_class.__name__} could not be loaded ({one_line(error)}); "
            "check the network, or give a folder that save_to_preset wrote, or a .npz, .keras or "
            f".h5 file; presets: {known}"
        ) from None


def _require_same_architecture(loaded: Backbone, wanted: Backbone, preset: str) -> None:
    shapes = [[tuple(x.shape) for x in model.weights] for model in (loaded, wanted)]
    if shapes[0] != shapes[1]:
        raise EdgeheadsError(
            f"preset {preset!r} is no {wanted.name}: it has {loaded.count_params()} parameters "
            f"in {len(shapes[0])} weights, expected {wanted.count_params()} in {len(shapes[1])}"
        )
