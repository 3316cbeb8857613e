"""Boxes around objects, each with a class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import keras

from edgeheads.heads.anchors import ANCHOR_RATIOS, ANCHOR_SCALES, AnchorGenerator
from edgeheads.heads.base import BaseVisionHead
from edgeheads.heads.layers.inputs import static_sizes
from edgeheads.heads.layers.part import Tensor
from edgeheads.heads.layers.prior import prior_bias
from edgeheads.tasks.task_type import TaskType

__all__ = ["DetectionHead"]


@keras.saving.register_keras_serializable(package="edgeheads")
class DetectionHead(BaseVisionHead):
    """Finds objects of K classes on one or many levels (Lin et al. 2017, "Focal Loss for Dense
    Object Detection").

    A feature pyramid, then two towers of convolutions on each level, then one prediction
    convolution per kind that all levels share: so the logits of all levels have one scale and can
    be concatenated in int8. Logits and regressions stay apart.

    The bias of the class logits starts at a probability of `prior_probability`: most anchors hold
    nothing, and a focal loss that starts at 0.5 diverges.

    Args:
        num_classes: K, without a background, at least 1.
        num_anchors: per cell; must be the number of anchor_scales times that of anchor_ratios.
        bbox_dims: numbers in a regression; 4, or more for boxes with further parameters.
        anchor_scales: see `AnchorGenerator`.
        anchor_ratios: see `AnchorGenerator`.
        tower_depth: convolutions between the pyramid and the predictions, at least 1.
        prior_probability: in (0, 1).
        **options: see `BaseVisionHead`.

    Attributes:
        anchors: the generator of the boxes that the outputs refer to.

    Returns: classifications [B, A, K], logits; regressions [B, A, 4], see `boxes.encode_boxes`.
        A counts the anchors of all levels, in the order of `AnchorGenerator`.
    """

    task = TaskType.DETECTION
    edge_parts: ClassVar[tuple[str, ...]] = ("classifications", "regressions")

    def __init__(
        self,
        *,
        num_classes: int = 80,
        num_anchors: int = 9,
        bbox_dims: int = 4,
        anchor_scales: Sequence[float] = ANCHOR_SCALES,
        anchor_ratios: Sequence[float] = ANCHOR_RATIOS,
        tower_depth: int = 1,
        prior_probability: float = 0.01,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.anchors = AnchorGenerator(tuple(anchor_scales), tuple(anchor_ratios))
        self._require("num_classes", num_classes, num_classes >= 1, "at least 1", "num_classes=80")
        self._require(
            "num_anchors",
            num_anchors,
            num_anchors == self.anchors.per_cell,
            f"{self.anchors.per_cell}, for {len(self.anchors.scales)} anchor_scales times "
            f"{len(self.anchors.ratios)} anchor_ratios",
            "num_anchors=3, anchor_scales=(1.0,), anchor_ratios=(0.5, 1.0, 2.0)",
        )
        self._require("bbox_dims", bbox_dims, bbox_dims >= 4, "at least 4", "bbox_dims=4")
        self._require("tower_depth", tower_depth, tower_depth >= 1, "at least 1", "tower_depth=1")
        self._require(
            "prior_probability",
            prior_probability,
            0 < prior_probability < 1,
            "in (0, 1)",
            "prior_probability=0.01",
        )
        self.num_classes = num_classes
        self.num_anchors = num_anchors
        self.bbox_dims = bbox_dims
        self.tower_depth = tower_depth
        self.prior_probability = prior_probability

    def forward(self, maps: list[Tensor]) -> dict[str, Tensor]:
        """Compute the predictions for every anchor from maps, fine to coarse."""
        return self.detect(self.fuse(maps))[0]

    def fuse(self, maps: list[Tensor]) -> list[Tensor]:
        """Return as many maps of hidden_dim channels, each of which knows the coarser ones."""
        sizes = static_sizes(maps)
        levels = [self.context(maps[-1])]
        for index in range(len(maps) - 2, -1, -1):
            finer = self.climb(
                levels[0], maps[index], sizes[index], self.hidden_dim, f"pyramid_{index}"
            )
            levels.insert(0, finer)
        return levels

    def detect(self, levels: list[Tensor]) -> tuple[dict[str, Tensor], list[Tensor]]:
        """Return the outputs, and what the regressions were predicted from on each level."""
        logits = self.per_anchor(
            self.towers(levels, "class_tower"),
            self.num_classes,
            "classify",
            bias_initializer=prior_bias(self.prior_probability),
        )
        box_towers = self.towers(levels, "box_tower")
        regressions = self.per_anchor(box_towers, self.bbox_dims, "regress")
        outputs = {
            "classifications": self.as_output(logits, "classifications"),
            "regressions": self.as_output(regressions, "regressions"),
        }
        return outputs, box_towers

    def towers(self, levels: list[Tensor], name: str) -> list[Tensor]:
        """A few convolutions on each level, each level with its own."""

        def tower(x: Tensor, name: str) -> Tensor:
            for depth in range(self.tower_depth):
                x = self.convolve(x, self.hidden_dim, f"{name}_{depth}")
            return x

        return [
            self.stage(f"{name}_{index}", lambda x, index=index: tower(x, f"{name}_{index}"), x)
            for index, x in enumerate(levels)
        ]

    def per_anchor(self, towers: list[Tensor], values: int, name: str, **options: Any) -> Tensor:
        """Predict [B, A, values] by one 1x1 convolution for all levels."""
        conv = self.part(
            keras.layers.Conv2D,
            name,
            filters=self.num_anchors * values,
            kernel_size=1,
            **options,
        )
        flat = [
            self.part(keras.layers.Reshape, f"{name}_{index}", target_shape=(-1, values))(conv(x))
            for index, x in enumerate(towers)
        ]
        if len(flat) == 1:
            return flat[0]
        return self.part(keras.layers.Concatenate, f"{name}_levels", axis=1)(flat)

    def get_config(self) -> dict[str, Any]:
        """Return the keyword arguments that make an equal head."""
        return {
            **super().get_config(),
            "num_classes": self.num_classes,
            "num_anchors": self.num_anchors,
            "bbox_dims": self.bbox_dims,
            "anchor_scales": self.anchors.scales,
            "anchor_ratios": self.anchors.ratios,
            "tower_depth": self.tower_depth,
            "prior_probability": self.prior_probability,
        }
