"""The backbone contract: a Keras model whose outputs are a declared pyramid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import keras

from edgeheads.errors import EdgeheadsError, unknown_name

__all__ = ["Backbone", "InputScaling", "Level"]


@dataclass(frozen=True)
class InputScaling:
    """What a network's input is made of pixels: pixel * scale + offset, per channel.

    Attributes:
        scale: one number for each of R, G, B; a pixel is in [0, 255].
        offset: likewise.
    """

    scale: tuple[float, float, float] = (1.0, 1.0, 1.0)
    offset: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @classmethod
    def uniform(cls, scale: float, offset: float = 0.0) -> InputScaling:
        """Return the scaling that treats the three channels alike."""
        return cls((scale,) * 3, (offset,) * 3)


@dataclass(frozen=True)
class Level:
    """One output of a backbone.

    Attributes:
        stride: input height divided by the map's height, rounded up.
        channels: of the map.
    """

    stride: int
    channels: int


@keras.saving.register_keras_serializable(package="edgeheads")
class Backbone(keras.Model):
    """A functional Keras model that returns {level name: map [B, H/stride, W/stride, channels]}.

    Level "P3" is 2^3 = 8 times smaller than the input. Levels are ordered fine to coarse.

    Attributes:
        pyramid: {level name: Level}, in the order of the outputs.
        scaling: what to feed it, as a function of 8-bit pixels.

    Args:
        inputs: the symbolic input [B, H, W, 3].
        outputs: {level name: symbolic map}, fine to coarse.
        scaling: see above.
    """

    def __init__(
        self,
        inputs: Any,
        outputs: Mapping[str, Any],
        *,
        scaling: InputScaling | Mapping[str, Any],
        **kwargs: Any,
    ) -> None:
        super().__init__(inputs=inputs, outputs=dict(outputs), **kwargs)
        if isinstance(scaling, Mapping):
            scaling = InputScaling(tuple(scaling["scale"]), tuple(scaling["offset"]))
        self.scaling = scaling
        self._levels = {
            name: Level(-(-inputs.shape[1] // x.shape[1]), x.shape[-1])
            for name, x in outputs.items()
        }

    @property
    def pyramid(self) -> dict[str, Level]:
        """Stride and channels of each output."""
        return dict(self._levels)

    @classmethod
    def from_model(
        cls,
        model: keras.Model,
        layers: Sequence[str],
        *,
        scaling: InputScaling | None = None,
        name: str | None = None,
    ) -> Backbone:
        """Make a backbone of any functional Keras model with one image input.

        Args:
            model: its graph and weights are shared, not copied.
            layers: the names of the layers whose outputs become the pyramid, fine to coarse.
            scaling: what the model was trained on; default: pixels in [0, 255], unchanged.

        Raises:
            EdgeheadsError: a layer of that name does not exist, or does not return a map.
        """
        outputs = {}
        height = model.input.shape[1]
        if height is None or model.input.shape[2] is None:
            raise EdgeheadsError(
                f"a backbone needs a fixed input size, received input shape {model.input.shape}"
            )
        for layer in layers:
            if layer not in (known := [one.name for one in model.layers]):
                raise unknown_name("layer", layer, known)
            tensor = model.get_layer(layer).output
            if len(tensor.shape) != 4:
                raise EdgeheadsError(
                    f"layer {layer!r} must return a map [B, H, W, C], "
                    f"received shape {tuple(tensor.shape)}"
                )
            stride = -(-height // tensor.shape[1])
            outputs[f"P{max(0, (stride - 1).bit_length())}"] = tensor
        if len(outputs) != len(layers):
            raise EdgeheadsError(f"each layer must have a stride of its own, received {layers}")
        return cls(
            model.inputs[0], outputs, scaling=scaling or InputScaling(), name=name or model.name
        )

    def get_config(self) -> dict[str, Any]:
        """Return the functional graph and the scaling."""
        return {
            "graph": keras.Model(self.inputs[0], dict(self.output), name=self.name).get_config(),
            "scaling": asdict(self.scaling),
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Backbone:
        """Rebuild the graph."""
        graph = keras.Model.from_config(config["graph"], custom_objects=custom_objects)
        return cls(graph.inputs[0], graph.output, scaling=config["scaling"], name=config["name"])
