"""One class for every pixel."""

from __future__ import annotations

from typing import Any

import keras

from edgeheads.heads.dense import DenseHead
from edgeheads.heads.layers.part import Tensor
from edgeheads.tasks.task_type import TaskType

__all__ = ["SegmentationHead"]


@keras.saving.register_keras_serializable(package="edgeheads")
class SegmentationHead(DenseHead):
    """Gives every pixel one of K classes, by an encoder-decoder with skip connections
    (Ronneberger et al. 2015, U-Net; additions instead of concatenations).

    Args:
        num_classes: K, with the background; 1 separates one foreground from the rest.
        **options: see `DenseHead`.

    Returns: logits [B, H, W, K]; masks [B, H, W, K], the probability of each class at each pixel:
        the softmax of the logits, or, for K = 1, their sigmoid.
    """

    task = TaskType.SEGMENTATION
    edge_parts = ("logits",)

    def __init__(self, *, num_classes: int = 21, **options: Any) -> None:
        super().__init__(**options)
        self._require("num_classes", num_classes, num_classes >= 1, "at least 1", "num_classes=21")
        self.num_classes = num_classes

    def forward(self, maps: list[Tensor]) -> dict[str, Tensor]:
        """Compute logits and masks from maps, fine to coarse."""
        x, left = self.decode(maps)
        # The classes are cheaper to tell apart on the small map than on the enlarged one.
        x = self.at_output_size(self.predict(x, self.num_classes, "classes"), left, "enlarged")
        logits = self.as_output(x, "logits")
        probability = "softmax" if self.num_classes > 1 else "sigmoid"
        return {"logits": logits, "masks": self.as_output(logits, "masks", activation=probability)}

    def get_config(self) -> dict[str, Any]:
        """Return the keyword arguments that make an equal head."""
        return {**super().get_config(), "num_classes": self.num_classes}
