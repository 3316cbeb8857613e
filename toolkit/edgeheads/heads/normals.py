"""Which way every visible surface faces."""

from __future__ import annotations

import keras

from edgeheads.heads.dense import DenseHead
from edgeheads.heads.layers.part import Tensor
from edgeheads.tasks.task_type import TaskType

__all__ = ["SurfaceNormalsHead"]

# Facing the camera, so that the direction is defined before the first step of training.
_FACING = -1.0


@keras.saving.register_keras_serializable(package="edgeheads")
class SurfaceNormalsHead(DenseHead):
    """Estimates the surface normal at every pixel (Eigen & Fergus 2015, "Predicting Depth, Surface
    Normals and Semantic Labels with a Common Multi-Scale Convolutional Architecture").

    Args:
        **options: see `DenseHead`.

    Returns: normals [B, H, W, 3], unit vectors in the camera frame: x right, y down, z forward. A
        surface that is seen has z < 0.
    """

    task = TaskType.SURFACE_NORMALS
    edge_parts = ("vectors",)

    def forward(self, maps: list[Tensor]) -> dict[str, Tensor]:
        """Compute normals from maps, fine to coarse."""
        x, left = self.decode(maps)
        sideways = self.predict(x, 2, "sideways")
        forward = self.predict(
            x, 1, "forward", bias_initializer=keras.initializers.Constant(_FACING)
        )
        vectors = self.part(keras.layers.Concatenate, "small")([sideways, forward])
        vectors = self.as_output(self.at_output_size(vectors, left, "enlarged"), "vectors")
        unit = self.part(keras.layers.UnitNormalization, "unit", dtype="float32")(vectors)
        return {"normals": self.as_output(unit, "normals")}
