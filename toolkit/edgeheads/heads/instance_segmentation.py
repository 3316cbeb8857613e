"""Boxes around objects, each with a class and a mask of its own."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from edgeheads.errors import EdgeheadsError
from edgeheads.heads.boxes import decode_boxes
from edgeheads.heads.detection import DetectionHead
from edgeheads.heads.layers.conv import upsample
from edgeheads.heads.layers.inputs import known_size
from edgeheads.heads.layers.part import Tensor
from edgeheads.heads.masks import box_masks
from edgeheads.tasks.task_type import TaskType

__all__ = ["InstanceSegmentationHead"]

_PROTOTYPE_FACTOR = 2


@keras.saving.register_keras_serializable(package="edgeheads")
class InstanceSegmentationHead(DetectionHead):
    """A detector whose every anchor also mixes a mask of shared prototypes (Bolya et al. 2019,
    "YOLACT: Real-time Instance Segmentation").

    Training needs no choice of objects: a loss takes the `coefficients` of the anchors that are
    matched to an object, and compares their sum of `prototypes` with its mask, inside its box
    (`masks.box_masks`). A device does likewise, for the few boxes that suppression keeps.

    The `instance_...` outputs are that assembly inside the graph, with a static shape: the N
    anchors with the best class score, before any suppression, best first. Row i of each of the
    three is the same object.

    Args:
        num_instances: N; fewer where the maps have fewer anchors.
        mask_size: (rows, columns) of a mask, over its box.
        num_prototypes: P.
        **options: see `DetectionHead`.

    Returns: classifications [B, A, K] logits; regressions [B, A, 4]; coefficients [B, A, P] in
        [-1, 1]; prototypes [B, h, w, P], twice as fine as the finest map; instance_boxes
        [B, N, 4], x_min, y_min, x_max, y_max in fractions of the image; instance_scores [B, N, K]
        and instance_masks [B, N, rows, columns] in [0, 1].
    """

    task = TaskType.INSTANCE_SEGMENTATION
    edge_parts = ("classifications", "regressions", "coefficients", "prototypes")

    def __init__(
        self,
        *,
        num_instances: int = 100,
        mask_size: tuple[int, int] = (28, 28),
        num_prototypes: int = 32,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        for option, value in (("num_instances", num_instances), ("num_prototypes", num_prototypes)):
            self._require(option, value, value >= 1, "at least 1", f"{option}=32")
        self._require(
            "mask_size",
            mask_size,
            len(mask_size) == 2 and min(mask_size) >= 1,
            "(rows, columns), at least (1, 1)",
            "mask_size=(28, 28)",
        )
        self._require(
            "bbox_dims", self.bbox_dims, self.bbox_dims == 4, "4, to cut masks by", "bbox_dims=4"
        )
        self.num_instances = num_instances
        self.mask_size = (mask_size[0], mask_size[1])
        self.num_prototypes = num_prototypes

    def forward(self, maps: list[Tensor]) -> dict[str, Tensor]:
        """Compute the predictions for every anchor, and the best instances."""
        grids = [known_size(x, "instance segmentation") for x in maps]
        levels = self.fuse(maps)
        outputs, box_towers = self.detect(levels)
        coefficients = self.per_anchor(box_towers, self.num_prototypes, "mix", activation="tanh")
        prototypes = self.stage("protonet", self._prototypes, levels[0])
        outputs |= {
            "coefficients": self.as_output(coefficients, "coefficients"),
            "prototypes": self.as_output(prototypes, "prototypes"),
        }
        return outputs | self._best_instances(outputs, grids)

    def _prototypes(self, x: Tensor) -> Tensor:
        x = self.convolve(x, self.hidden_dim, "protonet_0")
        x = upsample(self.part, x, _PROTOTYPE_FACTOR, "protonet_up")
        x = self.convolve(x, self.hidden_dim, "protonet_1")
        conv = self.part(
            keras.layers.Conv2D,
            "protonet_prototypes",
            filters=self.num_prototypes,
            kernel_size=1,
            activation="relu",
        )
        return conv(x)

    def _best_instances(
        self, raw: dict[str, Tensor], grids: list[tuple[int, int]]
    ) -> dict[str, Tensor]:
        best = ops.max(raw["classifications"], axis=-1)
        rows = ops.top_k(best, min(self.num_instances, self.anchors.count(grids)))[1]

        def chosen(name: str) -> Tensor:
            return ops.take_along_axis(raw[name], ops.expand_dims(rows, -1), axis=1)

        anchors = self._anchors_at(rows, grids)
        boxes = ops.clip(decode_boxes(chosen("regressions"), anchors, ops), 0.0, 1.0)
        masks = box_masks(raw["prototypes"], chosen("coefficients"), boxes, self.mask_size, ops)
        scores = chosen("classifications")
        return {
            "instance_boxes": self.as_output(boxes, "instance_boxes"),
            "instance_scores": self.as_output(scores, "instance_scores", activation="sigmoid"),
            "instance_masks": self.as_output(masks, "instance_masks", activation="sigmoid"),
        }

    def _anchors_at(self, rows: Tensor, grids: list[tuple[int, int]]) -> Tensor:
        """Look rows [B, N] of the anchors up: a table of constants is an embedding that does not
        learn.
        """
        count = self.anchors.count(grids)
        table = self.part(
            keras.layers.Embedding,
            "anchor_table",
            input_dim=count,
            output_dim=4,
            embeddings_initializer=lambda shape, dtype=None: ops.convert_to_tensor(
                self.anchors.boxes(grids), dtype
            ),
            trainable=False,
            dtype="float32",
        )
        if table.input_dim != count:
            raise EdgeheadsError(
                f"{type(self).__name__} {self.name!r} was built for {table.input_dim} anchors, "
                f"received maps with {count}; make a new head for this input size: "
                f"create_vision_head({self.task.value!r}, ...)"
            )
        anchors = table(rows)
        # The values are saved as weights; a graph must load where this function is not known.
        table.embeddings_initializer = keras.initializers.Zeros()
        return anchors

    def get_config(self) -> dict[str, Any]:
        """Return the keyword arguments that make an equal head."""
        return {
            **super().get_config(),
            "num_instances": self.num_instances,
            "mask_size": self.mask_size,
            "num_prototypes": self.num_prototypes,
        }
