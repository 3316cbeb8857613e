"""What every family of keras.applications shares: a description, and the way to a backbone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import keras

from edgeheads.backbones.base import Backbone, InputScaling
from edgeheads.backbones.weights import load_weights, require_imagenet
from edgeheads.errors import EdgeheadsError

__all__ = ["Application", "create", "last_layers", "require_width"]

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Application:
    """One network of keras.applications, and what makes a backbone of it.

    Attributes:
        build: (input_shape, width, None or "imagenet") -> the stock network without its
            classifier.
        levels: {level: layer}, or a function of the network where the names depend on its depth.
        scaling: what `adapt(build(...))` takes.
        adapt: takes preprocessing out of the stock network's graph.
        widths: channel multipliers there are.
        imagenet_widths: those of them with ImageNet weights.
    """

    build: Callable[[Shape, float, str | None], keras.Model]
    levels: dict[str, str] | Callable[[keras.Model], dict[str, str]]
    scaling: InputScaling
    adapt: Callable[[keras.Model], keras.Model] = lambda network: network
    widths: tuple[float, ...] = (1.0,)
    imagenet_widths: tuple[float, ...] = (1.0,)


def create(
    name: str,
    application: Application,
    input_shape: Shape,
    *,
    width: float,
    weights: str | Path | None,
) -> Backbone:
    """Return the backbone with all its levels, filled with `weights`; see `create_backbone`."""
    require_width(name, width, application.widths)
    if weights == "imagenet":
        require_imagenet(name, width, application.imagenet_widths)

    def to_backbone(stock: keras.Model) -> Backbone:
        network = application.adapt(stock)
        levels = application.levels if isinstance(application.levels, dict) else None
        return Backbone.from_model(
            network,
            levels or application.levels(network),  # type: ignore[operator]
            scaling=application.scaling,
            name=name,
        )

    return load_weights(
        lambda source: application.build(input_shape, width, source), weights, to_backbone
    )


def last_layers(stages: dict[str, int], network: keras.Model) -> dict[str, str]:
    """Return {level: last layer of its stage} of an EfficientNet, which names them `block<i>...`.

    Args:
        stages: {level: number of the stage that ends it}.
        network: how many blocks a stage has differs from size to size.
    """
    names = [layer.name for layer in network.layers]
    return {
        level: [name for name in names if name.startswith(f"block{stage}")][-1]
        for level, stage in stages.items()
    }


def require_width(name: str, width: float, widths: tuple[float, ...]) -> None:
    """Refuse a channel multiplier that the family does not have."""
    if width not in widths:
        raise EdgeheadsError(f"{name}: width must be one of {widths}, received {width}")
