"""One label for the whole image."""

from __future__ import annotations

from typing import Any

import keras

from edgeheads.heads.base import BaseVisionHead
from edgeheads.heads.layers.part import Tensor
from edgeheads.tasks.task_type import TaskType

__all__ = ["POOLINGS", "ClassificationHead"]

_POOLING_LAYERS = {
    "average": keras.layers.GlobalAveragePooling2D,
    "max": keras.layers.GlobalMaxPooling2D,
}

POOLINGS = tuple(_POOLING_LAYERS)


@keras.saving.register_keras_serializable(package="edgeheads")
class ClassificationHead(BaseVisionHead):
    """Sorts an image into one of K classes: trunk, global pooling, one dense layer.

    Of a list of maps it reads the coarsest, which has seen all the finer ones.

    Args:
        num_classes: K, at least 2.
        pooling: "average" or "max", over all positions.
        **options: see `BaseVisionHead`.

    Returns: logits [B, K]; probabilities [B, K], their softmax.
    """

    task = TaskType.CLASSIFICATION
    edge_parts = ("logits",)

    def __init__(
        self, *, num_classes: int = 1000, pooling: str = "average", **options: Any
    ) -> None:
        super().__init__(**options)
        self._require("num_classes", num_classes, num_classes >= 2, "at least 2", "num_classes=10")
        self._require_choice("pooling", pooling, POOLINGS)
        self.num_classes = num_classes
        self.pooling = pooling

    @property
    def reads_finer_maps(self) -> bool:
        """The coarsest map is all that is read."""
        return False

    def forward(self, maps: list[Tensor]) -> dict[str, Tensor]:
        """Compute logits and probabilities from the coarsest map."""
        x = self.part(_POOLING_LAYERS[self.pooling], "pool")(self.context(maps[-1]))
        if self.dropout_rate:
            x = self.part(keras.layers.Dropout, "dropout", rate=self.dropout_rate)(x)
        x = self.part(keras.layers.Dense, "classes", units=self.num_classes)(x)
        logits = self.as_output(x, "logits")
        return {
            "logits": logits,
            "probabilities": self.as_output(logits, "probabilities", activation="softmax"),
        }

    def get_config(self) -> dict[str, Any]:
        """Return the keyword arguments that make an equal head."""
        return {**super().get_config(), "num_classes": self.num_classes, "pooling": self.pooling}
