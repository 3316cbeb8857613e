"""The backbone contract: a Keras model whose outputs are a declared pyramid."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import keras

from edgeheads.errors import EdgeheadsError, unknown_name

__all__ = ["Backbone", "InputScaling", "Level", "name_levels", "require_sides"]


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

    @classmethod
    def standardized(cls, mean: Sequence[float], std: Sequence[float]) -> InputScaling:
        """Return (pixel / 255 - mean) / std, with mean and std of R, G, B in units of [0, 1]."""
        red, green, blue = zip(mean, std, strict=True)
        channels = (red, green, blue)
        scale = tuple(1 / (255 * sigma) for _, sigma in channels)
        offset = tuple(-mu / sigma for mu, sigma in channels)
        return cls(scale, offset)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Level:
    """One output of a backbone: a map [B, H/stride, W/stride, channels], or tokens.

    Tokens [B, N, channels] are `prefix_tokens` class and register tokens, then the patches, row
    by row: N = prefix_tokens + rows * columns.

    Attributes:
        stride: pixels of the input between two neighbours of the output; the patch size of tokens.
        channels: of the map, or of each token.
        grid: (rows, columns) of the patches; None for a map.
        prefix_tokens: tokens in front of the patches that stand for no place in the image.
    """

    stride: int
    channels: int
    grid: tuple[int, int] | None = None
    prefix_tokens: int = 0

    @property
    def tokens(self) -> bool:
        """Whether the output is tokens [B, N, C] rather than a map [B, H, W, C]."""
        return self.grid is not None


@keras.saving.register_keras_serializable(package="edgeheads")
class Backbone(keras.Model):
    """A functional Keras model that returns {level name: map or tokens}, fine to coarse.

    Level "P3" is 2^3 = 8 times smaller than the input. Keras hands a dictionary's values over in
    the order of its keys, which for P1...P5 is fine to coarse.

    Attributes:
        pyramid: {level name: Level}, in the order of the outputs.
        scaling: what to feed it, as a function of 8-bit pixels.

    Args:
        inputs: the symbolic input [B, H, W, 3], H and W known.
        outputs: {level name: symbolic map [B, h, w, C] or tokens [B, N, C]}, fine to coarse.
        scaling: see above.
        strides: {level name: stride}, for tokens (their patch size) and for maps whose name is
            not P and a number.

    Raises:
        EdgeheadsError: an output of another rank, or whose size contradicts its stride.
    """

    def __init__(
        self,
        inputs: Any,
        outputs: Mapping[str, Any],
        *,
        scaling: InputScaling | Mapping[str, Any],
        strides: Mapping[str, int] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(inputs=inputs, outputs=dict(outputs), **kwargs)
        if isinstance(scaling, Mapping):
            scaling = InputScaling(tuple(scaling["scale"]), tuple(scaling["offset"]))
        self.scaling = scaling
        size = (inputs.shape[1], inputs.shape[2])
        self._levels = {
            name: _level(name, size, tuple(x.shape), (strides or {}).get(name))
            for name, x in outputs.items()
        }

    @property
    def pyramid(self) -> dict[str, Level]:
        """Stride, channels and, for tokens, the grid of each output."""
        return dict(self._levels)

    @classmethod
    def from_model(
        cls,
        model: keras.Model,
        layers: Sequence[str] | Mapping[str, str],
        *,
        scaling: InputScaling | None = None,
        patch_size: int | None = None,
        name: str | None = None,
    ) -> Backbone:
        """Make a backbone of any functional Keras model with one image input.

        Args:
            model: its graph and weights are shared, not copied.
            layers: the names of the layers whose outputs become the pyramid, fine to coarse. A
                map of stride 2^k becomes level "Pk", tokens become level "tokens"; a dictionary
                {level name: layer name} names the levels otherwise.
            scaling: what the model was trained on; default: pixels in [0, 255], unchanged.
            patch_size: pixels from patch to patch, for layers that return tokens [B, N, C].

        Raises:
            EdgeheadsError: a layer of that name does not exist, or returns neither a map nor
                tokens; two layers of one stride; tokens without their patch size.
        """
        height, width = model.input.shape[1:3]
        if height is None or width is None:
            raise EdgeheadsError(
                f"a backbone needs a fixed input size, received input shape {model.input.shape}"
            )
        named = list(layers.items()) if isinstance(layers, Mapping) else [("", x) for x in layers]
        outputs: dict[str, Any] = {}
        strides: dict[str, int] = {}
        for level, layer in named:
            tensor = _output_of(model, layer)
            if len(tensor.shape) == 3:
                level = level or "tokens"
                strides[level] = _patch_size(layer, patch_size)
            else:
                level = level or _level_name(height, tensor)
            outputs[level] = tensor
        if len(outputs) != len(named):
            raise EdgeheadsError(
                f"each layer must have a stride of its own, received {layers}; "
                "name the levels: layers={'P3': ..., 'P3b': ...}"
            )
        return cls(
            model.inputs[0],
            outputs,
            scaling=scaling or InputScaling(),
            strides=strides,
            name=name or model.name,
        )

    def select(self, levels: Sequence[str]) -> Backbone:
        """Return the backbone that ends at some of the levels; it shares the weights.

        Raises:
            EdgeheadsError: a level there is not, or none at all.
        """
        for level in levels:
            if level not in self._levels:
                raise unknown_name(f"level of {self.name}", level, self._levels)
        if not levels:
            raise EdgeheadsError(f"levels must name at least one of {list(self._levels)}")
        return Backbone(
            self.input,
            {level: self.output[level] for level in self._levels if level in levels},
            scaling=self.scaling,
            strides=self._strides(),
            name=self.name,
        )

    def _strides(self) -> dict[str, int]:
        return {name: level.stride for name, level in self._levels.items()}

    def get_config(self) -> dict[str, Any]:
        """Return the functional graph, the scaling and the strides."""
        return {
            "graph": keras.Model(self.inputs[0], dict(self.output), name=self.name).get_config(),
            "scaling": asdict(self.scaling),
            "strides": self._strides(),
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Backbone:
        """Rebuild the graph."""
        graph = keras.Model.from_config(config["graph"], custom_objects=custom_objects)
        return cls(
            graph.inputs[0],
            graph.output,
            scaling=config["scaling"],
            strides=config["strides"],
            name=config["name"],
        )


def name_levels(inputs: Any, maps: Sequence[Any]) -> dict[str, Any]:
    """Return symbolic maps by their level: "P3" for one of stride 8.

    Args:
        inputs: the symbolic input [B, H, W, 3].
        maps: [B, h, w, C], one per stride.
    """
    return {_level_name(inputs.shape[1], x): x for x in maps}


def require_sides(name: str, input_shape: tuple[int, int, int], multiple: int) -> None:
    """Refuse an input whose height or width is no multiple of what the network divides it by."""
    if input_shape[0] % multiple or input_shape[1] % multiple:
        raise EdgeheadsError(
            f"{name}: height and width must be multiples of {multiple}, "
            f"received input_shape {input_shape}"
        )


def _output_of(model: keras.Model, layer: str) -> Any:
    if layer not in (known := [one.name for one in model.layers]):
        raise unknown_name("layer", layer, known)
    tensor = model.get_layer(layer).output
    if not hasattr(tensor, "shape") or len(tensor.shape) not in (3, 4):
        shape = tuple(tensor.shape) if hasattr(tensor, "shape") else tensor
        raise EdgeheadsError(
            f"layer {layer!r} must return a map [B, H, W, C] or tokens [B, N, C], "
            f"received shape {shape}"
        )
    return tensor


def _patch_size(layer: str, patch_size: int | None) -> int:
    if patch_size is None:
        raise EdgeheadsError(
            f"layer {layer!r} returns tokens; pass patch_size, the pixels from patch to patch"
        )
    return patch_size


def _nominal_stride(level: str) -> int | None:
    """2^k for a level called Pk."""
    match = re.fullmatch(r"P(\d+)", level)
    return 2 ** int(match.group(1)) if match else None


def _level_name(size: int, tensor: Any) -> str:
    return f"P{(_stride_of_map(size, tensor.shape[1]) - 1).bit_length()}"


def _stride_of_map(size: int, map_size: int) -> int:
    """The stride that makes a map of `map_size` of `size`.

    Sizes do not tell it alone: 100 pixels at stride 32 are 4 (padded), which 25 would give too.
    So: the power of two that fits, or else the exact quotient, or else the nearest power of two
    (convolutions without padding lose a row).
    """
    powers = [2**k for k in range(size.bit_length() + 1)]
    for power in powers:
        if -(-size // power) == map_size:
            return power
    if size % map_size == 0:
        return size // map_size
    return min(powers, key=lambda power: abs(power - size / map_size))


def _level(
    name: str, size: tuple[int, int], shape: tuple[int | None, ...], stride: int | None
) -> Level:
    """Return what an output of that shape is, checked against the input's (height, width)."""
    if len(shape) == 3:
        return _token_level(name, size, shape, _patch_size(name, stride))
    stride = stride or _nominal_stride(name) or _stride_of_map(size[0], shape[1] or 1)
    if any(abs(length / stride - (m or 0)) > 1 for length, m in zip(size, shape[1:3], strict=True)):
        raise EdgeheadsError(
            f"level {name!r} of stride {stride} must be {size[0] // stride}x{size[1] // stride} "
            f"for an input of {size[0]}x{size[1]}, received a map of shape {shape}"
        )
    return Level(stride, shape[3] or 0)


def _token_level(
    name: str, size: tuple[int, int], shape: tuple[int | None, ...], patch: int
) -> Level:
    grid = (size[0] // patch, size[1] // patch)
    prefix = (shape[1] or 0) - grid[0] * grid[1]
    if prefix < 0:
        raise EdgeheadsError(
            f"level {name!r} needs at least {grid[0]}x{grid[1]} tokens of patch size {patch} for "
            f"an input of {size[0]}x{size[1]}, received shape {shape}"
        )
    return Level(patch, shape[2] or 0, grid, prefix)
