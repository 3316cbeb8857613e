"""What all heads share: options, inputs, the trunk, and the two ways of being called."""

from __future__ import annotations

import difflib
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import keras

from edgeheads.errors import EdgeheadsError
from edgeheads.heads.layers.attention import ATTENTION_TYPES, attend
from edgeheads.heads.layers.conv import conv_block, pointwise, resize_to
from edgeheads.heads.layers.ffn import FFN_TYPES, feed_forward
from edgeheads.heads.layers.inputs import as_list, as_maps, input_shapes
from edgeheads.heads.layers.norm import NORMALIZATIONS, activate
from edgeheads.heads.layers.part import Tensor, pair
from edgeheads.heads.layers.stage import CHECKPOINT_BACKENDS, in_context, recomputed
from edgeheads.tasks.task_type import TaskType

__all__ = ["BaseVisionHead"]


class BaseVisionHead(keras.layers.Layer):
    """A task's head: a Keras layer, and, through `connect`, a flat graph of stock layers.

    Called like any layer, it works in subclassed models and nests as one layer. `connect` lays
    the very same sublayers, weights included, into a functional graph, one node each; that is
    what `build_model` does, and what pruning, folding and quantization walk.

    A subclass writes one method, `forward`, in terms of `part` and the functions of
    `edgeheads.heads.layers`.

    Input: a map [B, H, W, C], tokens [B, N, D] (with or without class and register tokens), or a
    list or dictionary of either, fine to coarse. Returns: a dictionary of float32 tensors,
    whatever the compute policy; the keys are the task's contract.

    Attributes:
        task: what the head predicts.
        edge_parts: the parts whose outputs a quantized file should end at; see `edge_outputs`.
        output_follows_input: the output map is meant to be of the image's size.

    Args:
        hidden_dim: channels of the trunk, at least 8.
        use_attention: add an attention branch to the trunk.
        attention_type: "multi_head", "cbam" or "differential".
        use_ffn: add a feed-forward branch to the trunk.
        ffn_type: "mlp", "glu", "swiglu" or "geglu".
        ffn_expansion_factor: the branch's inner width, in multiples of hidden_dim.
        normalization_type: "layer_norm", "batch_norm", "rms_norm" or "zero_centered_rms_norm".
        activation_type: a Keras activation, such as "gelu" or "relu6".
        dropout_rate: in [0, 1), of each residual branch.
        separable: 3x3 convolutions are depthwise separable.
        grid_size: (rows, columns) of patch tokens, where they are not a square.
        checkpoint: keep only the borders of the head's stages for the backward pass and compute
            their insides again (TensorFlow and JAX). It works where the head is called as a
            layer; the graph that `connect` lays is of stock layers, which keep everything.

    Raises:
        EdgeheadsError: an option the head does not have or cannot work with.
    """

    task: ClassVar[TaskType]
    edge_parts: ClassVar[tuple[str, ...]]
    output_follows_input: ClassVar[bool] = False

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
        checkpoint: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._require_choice("attention_type", attention_type, ATTENTION_TYPES)
        self._require_choice("ffn_type", ffn_type, FFN_TYPES)
        self._require_choice("normalization_type", normalization_type, NORMALIZATIONS)
        self._require_activation(activation_type)
        self._require("hidden_dim", hidden_dim, hidden_dim >= 8, "at least 8", "hidden_dim=128")
        self._require(
            "ffn_expansion_factor",
            ffn_expansion_factor,
            ffn_expansion_factor >= 1,
            "at least 1",
            "ffn_expansion_factor=4",
        )
        self._require(
            "dropout_rate", dropout_rate, 0 <= dropout_rate < 1, "in [0, 1)", "dropout_rate=0.1"
        )
        backend = keras.backend.backend()
        if checkpoint and backend not in CHECKPOINT_BACKENDS:
            raise EdgeheadsError(
                f"{type(self).__name__}: checkpoint=True works on the Keras backends "
                f"{' and '.join(CHECKPOINT_BACKENDS)}, the active one is {backend}; "
                "set KERAS_BACKEND, or checkpoint=False"
            )
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
        self.grid_size = pair(grid_size)
        self.checkpoint = checkpoint
        self._parts: dict[str, keras.layers.Layer] = {}
        self._input_channels: tuple[int | None, ...] | None = None

    @abstractmethod
    def forward(self, maps: list[Tensor]) -> dict[str, Tensor]:
        """Compute the task's outputs from maps [B, H, W, C], fine to coarse."""

    # Two ways of being called

    def call(self, inputs: Any, training: bool | None = None) -> dict[str, Tensor]:
        """Compute the outputs as one layer."""
        tensors = as_list(inputs)

        def compute(*tensors: Tensor) -> dict[str, Tensor]:
            with _plain_errors():
                self._require_known_channels(tensors)
                return self.forward(as_maps(self.part, tensors, self.grid_size))

        if training is None or _symbolic(tensors):
            return compute(*tensors)
        # `stateless_call` gets here past `__call__`, which tells the parts about training.
        outputs: dict[str, Tensor] = in_context(compute, self.dtype_policy, training)(*tensors)
        return outputs

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
        self._input_channels = tuple(shape[-1] for shape in shapes)
        self.built = True

    @property
    def reads_finer_maps(self) -> bool:
        """Whether more than the coarsest map's values matter to the outputs."""
        return True

    def part(self, layer_class: type, part_name: str, **config: Any) -> keras.layers.Layer:
        """Return this head's layer `part_name`, made on first use."""
        if part_name not in self._parts:
            self._parts[part_name] = layer_class(
                name=f"{self.name}_{part_name}", **{"dtype": self.dtype_policy, **config}
            )
        return self._parts[part_name]

    def edge_outputs(self) -> dict[str, str]:
        """Return {part: layer name in the flat graph} of the tensors a quantized file ends at.

        Those are the last ones whose values spread evenly over one known range: logits,
        regressions, codes. What follows them (exp, softmax, a division by the norm, an argmax,
        the product of masks) costs int8 its precision, or is not an int8 operator at all; it is
        computed from real numbers after the file. Each kind stays a tensor with a scale of its
        own: boxes and scores in one tensor would share the scale of the larger.
        """
        return {part: f"{self.name}_{part}" for part in self.edge_parts}

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
            "checkpoint": self.checkpoint,
        }

    # The trunk, for subclasses

    def stage(self, name: str, function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
        """Return function(*tensors); with `checkpoint`, its inside is computed again for gradients.

        The parts that the function uses, and no others, are those called `name` or `name`_...
        """
        if not (self.checkpoint and self.built) or _symbolic(tensors):
            return function(*tensors)
        layers = [
            layer for key, layer in self._parts.items() if key == name or key.startswith(f"{name}_")
        ]
        return recomputed(function, layers, self.dtype_policy)(*tensors)

    def context(self, x: Tensor) -> Tensor:
        """Project a map to hidden_dim channels, then apply the attention and FFN branches."""
        x = self.project(x, self.hidden_dim, "project")
        x = activate(self.part, x, self.activation_type, "project_act")
        if self.use_attention:
            x = self.stage("attention", self._attend, x)
        if self.use_ffn:
            x = self.stage("ffn", self._feed_forward, x)
        return x

    def _attend(self, x: Tensor, name: str = "attention") -> Tensor:
        return attend(
            self.part,
            x,
            self.attention_type,
            name,
            normalization=self.normalization_type,
            dropout=self.dropout_rate,
        )

    def _feed_forward(self, x: Tensor) -> Tensor:
        return feed_forward(
            self.part,
            x,
            self.ffn_type,
            "ffn",
            expansion=self.ffn_expansion_factor,
            normalization=self.normalization_type,
            activation=self.activation_type,
            dropout=self.dropout_rate,
        )

    def project(self, x: Tensor, width: int, name: str) -> Tensor:
        """A normalized 1x1 convolution, without an activation."""
        return pointwise(self.part, x, width, name, normalization=self.normalization_type)

    def convolve(self, x: Tensor, width: int, name: str) -> Tensor:
        """A normalized and activated 3x3 convolution."""
        return conv_block(
            self.part,
            x,
            width,
            name,
            normalization=self.normalization_type,
            activation=self.activation_type,
            separable=self.separable,
        )

    def climb(
        self, x: Tensor, lateral: Tensor | None, size: tuple[int, int] | int, width: int, name: str
    ) -> Tensor:
        """Go one step finer, as one stage (Lin et al. 2017, FPN, top-down).

        Args:
            x: the coarser map.
            lateral: the finer map to add, if there is one.
            size: (height, width) of the result, or the factor it is finer by.
            width: channels of the result.
            name: of the stage.
        """

        def step(x: Tensor, *laterals: Tensor) -> Tensor:
            if x.shape[-1] != width:
                x = self.project(x, width, f"{name}_reduce")
            x = resize_to(self.part, x, size, f"{name}_up")
            for side in laterals:
                side = self.project(side, width, f"{name}_lateral")
                x = self.part(keras.layers.Add, f"{name}_add")([x, side])
            x = activate(self.part, x, self.activation_type, f"{name}_act")
            return self.convolve(x, width, f"{name}_conv")

        return self.stage(name, step, x, *([] if lateral is None else [lateral]))

    def as_output(self, x: Tensor, name: str, activation: str = "linear") -> Tensor:
        """Name an output and cast it to float32, whatever the compute policy."""
        return self.part(keras.layers.Activation, name, activation=activation, dtype="float32")(x)

    # Errors

    def _require_known_channels(self, tensors: Sequence[Tensor]) -> None:
        """Refuse maps of other channels than those the weights were made for."""
        received = tuple(x.shape[-1] for x in tensors)
        if self._input_channels not in (None, received):
            raise EdgeheadsError(
                f"{type(self).__name__} {self.name!r} was built for inputs with "
                f"{list(self._input_channels)} channels, received {list(received)}; "
                f"make a new head for this backbone: create_vision_head({self.task.value!r}, ...)"
            )

    def _require(
        self, option: str, received: Any, holds: bool, expected: str, example: str
    ) -> None:
        if not holds:
            raise EdgeheadsError(
                f"{type(self).__name__}: {option} must be {expected}, received {received!r}; "
                f"for example create_vision_head({self.task.value!r}, {example})"
            )

    def _require_choice(self, option: str, received: str, choices: tuple[str, ...]) -> None:
        close = difflib.get_close_matches(str(received), choices, n=1) or choices
        self._require(
            option,
            received,
            received in choices,
            f"one of {', '.join(choices)}",
            f"{option}={close[0]!r}",
        )

    def _require_activation(self, received: str) -> None:
        try:
            keras.activations.get(received)
            known = True
        except ValueError:
            known = False
        self._require(
            "activation_type",
            received,
            known and isinstance(received, str),
            "the name of a Keras activation",
            "activation_type='relu6'",
        )


@contextmanager
def _plain_errors() -> Iterator[None]:
    """Keep Keras from rewriting the text of our errors, which says all there is to say."""
    try:
        yield
    except EdgeheadsError as error:
        # Keras marks so the errors that it has put the arguments of a layer's call into.
        error._keras_call_info_injected = True  # type: ignore[attr-defined]
        raise


def _symbolic(tensors: Sequence[Tensor]) -> bool:
    return any(isinstance(x, keras.KerasTensor) for x in tensors)
