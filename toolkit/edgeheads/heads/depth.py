"""Monocular depth in metres, with a learned confidence."""

from __future__ import annotations

import math
from typing import Any

import keras

from edgeheads.heads.dense import DenseHead
from edgeheads.heads.layers.part import Tensor
from edgeheads.tasks.task_type import TaskType

__all__ = ["DEPTH_ENCODINGS", "DepthEstimationHead"]

DEPTH_ENCODINGS = ("log", "linear")


@keras.saving.register_keras_serializable(package="edgeheads")
class DepthEstimationHead(DenseHead):
    """Estimates the depth of every pixel, and how far to trust it.

    The network predicts a depth code in [0, 1] by a sigmoid; the depth is
    min_depth * (max_depth / min_depth) ** code ("log": a step of the code is the same relative
    error near and far), or min_depth + code * (max_depth - min_depth) ("linear"). The code is the
    tensor that is quantized: 256 levels over a known range.

    The confidence c in [0, 1] is an output of its own, trained as the scale of a Laplace
    likelihood of the logarithm of depth: an expected absolute log error of 0.01 ** c, that is
    100 % at c = 0, 10 % at c = 0.5, 1 % at c = 1 (Kendall & Gal 2017, "What Uncertainties Do We
    Need in Bayesian Deep Learning for Computer Vision?"; see `training.losses.depth_loss`).

    Args:
        min_depth: metres, above 0; the nearest depth the head can say.
        max_depth: metres, above min_depth; the farthest.
        depth_encoding: "log" or "linear".
        **options: see `DenseHead`.

    Returns: depth [B, H, W, 1] metres in [min_depth, max_depth]; confidence [B, H, W, 1] in [0, 1].
    """

    task = TaskType.DEPTH_ESTIMATION
    edge_parts = ("code", "confidence_code")

    def __init__(
        self,
        *,
        min_depth: float = 0.1,
        max_depth: float = 100.0,
        depth_encoding: str = "log",
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self._require_choice("depth_encoding", depth_encoding, DEPTH_ENCODINGS)
        example = "min_depth=0.1, max_depth=100.0"
        self._require("min_depth", min_depth, min_depth > 0, "above 0 metres", example)
        self._require(
            "max_depth",
            max_depth,
            max_depth > min_depth,
            f"above min_depth ({min_depth} metres)",
            example,
        )
        self.min_depth = float(min_depth)
        self.max_depth = float(max_depth)
        self.depth_encoding = depth_encoding

    def forward(self, maps: list[Tensor]) -> dict[str, Tensor]:
        """Compute depth and confidence from maps, fine to coarse."""
        x, left = self.decode(maps)
        depth = self._depth_of(self._bounded(x, left, "code"))
        confidence = self._bounded(x, left, "confidence_code")
        return {
            "depth": self.as_output(depth, "depth"),
            "confidence": self.as_output(confidence, "confidence"),
        }

    def _bounded(self, x: Tensor, factor: int, name: str) -> Tensor:
        """A map in [0, 1] at output size. The sigmoid comes first: it is cheaper on a small map,
        and enlarging cannot leave its range.
        """
        logits = self.predict(x, 1, f"{name}_logits")
        unit = self.part(keras.layers.Activation, f"{name}_unit", activation="sigmoid")(logits)
        enlarged = self.at_output_size(unit, factor, f"{name}_up")
        # Named by a layer of its own, which is there when nothing has to be enlarged, too.
        return self.part(keras.layers.Activation, name, activation="linear")(enlarged)

    def _depth_of(self, code: Tensor) -> Tensor:
        """Metres from the code, in float32: float16 would round a metre by a millimetre."""
        if self.depth_encoding == "linear":
            return self.part(
                keras.layers.Rescaling,
                "metres",
                scale=self.max_depth - self.min_depth,
                offset=self.min_depth,
                dtype="float32",
            )(code)
        log_depth = self.part(
            keras.layers.Rescaling,
            "log_metres",
            scale=math.log(self.max_depth / self.min_depth),
            offset=math.log(self.min_depth),
            dtype="float32",
        )(code)
        return self.part(
            keras.layers.Activation, "metres", activation="exponential", dtype="float32"
        )(log_depth)

    def get_config(self) -> dict[str, Any]:
        """Return the keyword arguments that make an equal head."""
        return {
            **super().get_config(),
            "min_depth": self.min_depth,
            "max_depth": self.max_depth,
            "depth_encoding": self.depth_encoding,
        }
