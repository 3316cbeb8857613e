"""What all heads share: options, inputs, the trunk, and the two ways of being called."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import keras

from edgeheads.errors import EdgeheadsError, unknown_name
from edgeheads.heads.layers.attention import ATTENTION_TYPES, attend
from edgeheads.heads.layers.conv import conv_block, pointwise, resize_to, upsample
from edgeheads.heads.layers.ffn import FFN_TYPES, feed_forward
from edgeheads.heads.layers.inputs import as_maps, input_shapes, static_sizes
from edgeheads.heads.layers.norm import NORMALIZATIONS, activate
from edgeheads.heads.layers.part import Tensor

__all__ = ["BaseVisionHead"]

_MIN_DECODER_WIDTH = 16
# Beyond this, one bilinear resize shows its blocks; the decoder doubles first.
_MAX_FINAL_FACTOR = 4


class BaseVisionHead(keras.layers.Layer):
    """A task's head: a Keras layer, and, through `connect`, a flat graph of stock layers.

    Called like any layer, it works in subclassed models and nests as one layer. `connect` lays
    the very same sublayers, weights included, into a functional graph, one node each; that is
    what `build_model` does, and what pruning, folding and quantization walk.

    A subclass writes one method, `forward`, in terms of `part` and the functions of
    `edgeheads.heads.layers`.

    Input: a map [B, H, W, C], tokens [B, N, D] (with or without class and register tokens), or a
    list of either, fine to coarse. Returns: a dictionary of float32 tensors, whatever the compute
    policy; the keys are the task's contract.

    Args:
        hidden_dim: channels of the trunk, at least 8.
        use_attention: add an attention branch to the trunk.
        attention_type: "multi_head", "cbam" or "differential".
        use_ffn: add a feed-forward branch to the trunk.
        ffn_type: "mlp", "glu", "swiglu" or "geglu".
        ffn_expansion_factor: the branch's inner width, in multiples of hidden_dim.
        normalization_type: "layer_norm", "batch_norm", "rms_norm" or "zero_centered_rms_norm".
        activation_type: a Keras activation, or "relu6".
        dropout_rate: in [0, 1), of each residual branch.
        separable: 3x3 convolutions are depthwise separable.
        grid_size: (rows, columns) of patch tokens, where they are not a square.
    """

    def __init__(
        self,
        *,
        hidden_dim: int = 256,
        use_attention: bool = False,
        attention_type: str = "multi_head",
        use_ffn: bool = True,
        ffn_type: str = "mlp",
        ffn_expansion_factor: int = 4,
        normalization_type: str = "layer_norm",
        activation_type: str = "gelu",
        dropout_rate: float = 0.1,
        separable: bool = False,
        grid_size: tuple[int, int] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._require_choice("attention_type", attention_type, ATTENTION_TYPES)
        self._require_choice("ffn_type", ffn_type, FFN_TYPES)
        self._require_choice("normalization_type", normalization_type, NORMALIZATIONS)
        self._require("hidden_dim", hidden_dim, hidden_dim >= 8, "at least 8")
        self._require(
            "ffn_expansion_factor", ffn_expansion_factor, ffn_expansion_factor >= 1, "at least 1"
        )
        self._require("dropout_rate", dropout_rate, 0 <= dropout_rate < 1, "in [0, 1)")
        self.hidden_dim = hidden_dim
        self.use_attention = use_attention
        self.attention_type = attention_type
        self.use_ffn = use_ffn
        self.ffn_type = ffn_type
        self.ffn_expansion_factor = ffn_expansion_factor
        self.normalization_type = normalization_type
        self.activation_type = activation_type
        self.dropout_rate = dropout_rate
        self.separable = separable
        self.grid_size = tuple(grid_size) if grid_size else None
        self._parts: dict[str, keras.layers.Layer] = {}

    @abstractmethod
    def forward(self, maps: list[Tensor]) -> dict[str, Tensor]:
        """Compute the task's outputs from maps [B, H, W, C], fine to coarse."""

    # Two ways of being called

    def call(self, inputs: Any) -> dict[str, Tensor]:
        """Compute the outputs as one layer."""
        return self.forward(as_maps(self.part, inputs, self.grid_size))

    def connect(self, inputs: Any) -> dict[str, Tensor]:
        """Lay the head's layers onto symbolic tensors, one node each, and return its outputs.

        Args:
            inputs: keras.KerasTensor, or a list or dictionary of them, fine to coarse.
        """
        if not self.built:
            self.build(keras.tree.map_structure(lambda x: x.shape, inputs))
        return self.call(inputs)

    def build(self, input_shape: Any) -> None:
        """Create every sublayer and its weights for one input shape, or a list of them."""
        shapes = input_shapes(input_shape)
        symbolic = [keras.KerasTensor(shape, dtype=self.compute_dtype) for shape in shapes]
        # Tracing `call` once makes each part and builds it.
        self.compute_output_spec(symbolic if len(symbolic) > 1 else symbolic[0])
        self.built = True

    def part(self, layer_class: type, part_name: str, **config: Any) -> keras.layers.Layer:
        """Return this head's layer `part_name`, made on first use."""
        if part_name not in self._parts:
            self._parts[part_name] = layer_class(
                name=f"{self.name}_{part_name}", **{"dtype": self.dtype_policy, **config}
            )
        return self._parts[part_name]

    def get_config(self) -> dict[str, Any]:
        """Return the keyword arguments that make an equal head."""
        return {
            **super().get_config(),
            "hidden_dim": self.hidden_dim,
            "use_attention": self.use_attention,
            "attention_type": self.attention_type,
            "use_ffn": self.use_ffn,
            "ffn_type": self.ffn_type,
            "ffn_expansion_factor": self.ffn_expansion_factor,
            "normalization_type": self.normalization_type,
            "activation_type": self.activation_type,
            "dropout_rate": self.dropout_rate,
            "separable": self.separable,
            "grid_size": self.grid_size,
        }

    # The trunk, for subclasses

    def context(self, x: Tensor) -> Tensor:
        """Project a map to hidden_dim channels, then apply the attention and FFN branches."""
        x = pointwise(
            self.part, x, self.hidden_dim, "project", normalization=self.normalization_type
        )
        x = activate(self.part, x, self.activation_type, "project_act")
        if self.use_attention:
            x = attend(
                self.part,
                x,
                self.attention_type,
                "attention",
                normalization=self.normalization_type,
                dropout=self.dropout_rate,
            )
        if self.use_ffn:
            x = feed_forward(
                self.part,
                x,
                self.ffn_type,
                "ffn",
                expansion=self.ffn_expansion_factor,
                normalization=self.normalization_type,
                activation=self.activation_type,
                dropout=self.dropout_rate,
            )
        return x

    def decode(self, maps: list[Tensor], upsampling_factor: int) -> tuple[Tensor, int]:
        """Climb from the coarsest map to the finest, halving the channels at each step.

        Args:
            maps: fine to coarse.
            upsampling_factor: how many times finer than the finest map the output will be.

        Returns:
            The decoded map, and the factor that is left for the caller's last resize.
        """
        sizes = static_sizes(maps)
        x = self.context(maps[-1])
        width = self.hidden_dim
        for index in range(len(maps) - 2, -1, -1):
            width = max(_MIN_DECODER_WIDTH, width // 2)
            x = self._decoder_step(x, maps[index], sizes[index], width, f"decoder_{index}")
        left, step = upsampling_factor, 0
        while left > _MAX_FINAL_FACTOR and left % 2 == 0:
            width = max(_MIN_DECODER_WIDTH, width // 2)
            x = self._decoder_step(x, None, None, width, f"refine_{step}")
            left, step = left // 2, step + 1
        return x, left

    def _decoder_step(
        self,
        x: Tensor,
        lateral: Tensor | None,
        size: tuple[int, int] | None,
        width: int,
        name: str,
    ) -> Tensor:
        """Reduce, enlarge, add the finer map, convolve (Lin et al. 2017, FPN, top-down)."""
        normalization = self.normalization_type
        x = pointwise(self.part, x, width, f"{name}_reduce", normalization=normalization)
        if lateral is None or size is None:
            x = upsample(self.part, x, 2, f"{name}_up")
        else:
            x = resize_to(self.part, x, size, f"{name}_up")
            side = pointwise(
                self.part, lateral, width, f"{name}_lateral", normalization=normalization
            )
            x = self.part(keras.layers.Add, f"{name}_add")([x, side])
        x = activate(self.part, x, self.activation_type, f"{name}_act")
        return conv_block(
            self.part,
            x,
            width,
            f"{name}_conv",
            normalization=normalization,
            activation=self.activation_type,
            separable=self.separable,
        )

    def as_output(self, x: Tensor, name: str) -> Tensor:
        """Cast an output to float32, whatever the compute policy."""
        return self.part(keras.layers.Activation, name, activation="linear", dtype="float32")(x)

    # Errors

    def _require(self, option: str, received: Any, holds: bool, expected: str) -> None:
        if not holds:
            raise EdgeheadsError(
                f"{type(self).__name__}: {option} must be {expected}, received {received!r}"
            )

    def _require_choice(self, option: str, received: str, choices: tuple[str, ...]) -> None:
        if received not in choices:
            raise EdgeheadsError(
                f"{type(self).__name__}: {unknown_name(option, received, choices)}"
            )
