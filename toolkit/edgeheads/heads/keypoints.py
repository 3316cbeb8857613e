"""Named points of an object or a person."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from edgeheads.heads.dense import DenseHead
from edgeheads.heads.layers.inputs import known_size
from edgeheads.heads.layers.part import Tensor
from edgeheads.heads.layers.prior import prior_bias
from edgeheads.tasks.task_type import TaskType

__all__ = ["KeypointHead"]


@keras.saving.register_keras_serializable(package="edgeheads")
class KeypointHead(DenseHead):
    """Locates K keypoints as heatmaps with sub-pixel offsets (Papandreou et al. 2017, "Towards
    Accurate Multi-person Pose Estimation in the Wild").

    Args:
        num_keypoints: K, at least 1.
        upsampling_factor: how many times finer than the finest input map the heatmaps are.
        prior_probability: in (0, 1), what heatmaps say at first, see `prior_bias`.
        **options: see `DenseHead`; output_size is that of the heatmaps.

    Returns: heatmaps [B, h, w, K], logits; offsets [B, h, w, 2K] in heatmap cells, from a cell's
        centre to the point, channel 2k for x and 2k + 1 for y of keypoint k; keypoints [B, K, 3]:
        x and y in [0, 1] of the image, and a score in [0, 1], the heatmap's peak.
    """

    task = TaskType.KEYPOINT_DETECTION
    edge_parts = ("heatmaps", "offsets")
    # A heatmap coarser than the image is what the offsets are for.
    output_follows_input = False

    def __init__(
        self,
        *,
        num_keypoints: int = 17,
        upsampling_factor: int = 1,
        prior_probability: float = 0.01,
        **options: Any,
    ) -> None:
        super().__init__(upsampling_factor=upsampling_factor, **options)
        self._require(
            "num_keypoints", num_keypoints, num_keypoints >= 1, "at least 1", "num_keypoints=17"
        )
        self._require(
            "prior_probability",
            prior_probability,
            0 < prior_probability < 1,
            "in (0, 1)",
            "prior_probability=0.01",
        )
        self.num_keypoints = num_keypoints
        self.prior_probability = prior_probability

    def forward(self, maps: list[Tensor]) -> dict[str, Tensor]:
        """Compute heatmaps and offsets from maps, fine to coarse, and read the points off them."""
        x, left = self.decode(maps)
        x = self.at_output_size(x, left, "enlarged")
        peaks = self.predict(
            x,
            self.num_keypoints,
            "peaks",
            bias_initializer=prior_bias(self.prior_probability),
        )
        outputs = {
            "heatmaps": self.as_output(peaks, "heatmaps"),
            "offsets": self.as_output(self.predict(x, 2 * self.num_keypoints, "shifts"), "offsets"),
        }
        points = _decode(outputs["heatmaps"], outputs["offsets"])
        return {**outputs, "keypoints": self.as_output(points, "keypoints")}

    def get_config(self) -> dict[str, Any]:
        """Return the keyword arguments that make an equal head."""
        return {
            **super().get_config(),
            "num_keypoints": self.num_keypoints,
            "prior_probability": self.prior_probability,
        }


def _decode(heatmaps: Tensor, offsets: Tensor) -> Tensor:
    """Return [B, K, 3]: the cell of the highest logit, moved by its offset; the score there."""
    height, width = known_size(heatmaps, "reading keypoints off a heatmap")
    count = heatmaps.shape[-1]
    cells = ops.reshape(heatmaps, (-1, height * width, count))
    shifts = ops.reshape(offsets, (-1, height * width, count, 2))
    peak = ops.argmax(cells, axis=1)
    at_peak = ops.expand_dims(ops.expand_dims(peak, 1), -1)
    shift = ops.squeeze(ops.take_along_axis(shifts, at_peak, axis=1), axis=1)
    row, column = ops.floor_divide(peak, width), ops.mod(peak, width)
    cell = ops.cast(ops.stack([column, row], axis=-1), "float32")
    points = (cell + 0.5 + shift) / ops.convert_to_tensor([width, height], "float32")
    score = ops.sigmoid(ops.max(cells, axis=1))
    return ops.concatenate([ops.clip(points, 0.0, 1.0), ops.expand_dims(score, -1)], axis=-1)
