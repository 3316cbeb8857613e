"""A better image: without its noise, or larger."""

from __future__ import annotations

from typing import Any

import keras

from edgeheads.errors import EdgeheadsError
from edgeheads.heads.dense import DenseHead
from edgeheads.heads.layers.conv import upsample
from edgeheads.heads.layers.part import Tensor
from edgeheads.tasks.task_type import TaskType

__all__ = ["EnhancementHead"]

_COLORS = 3


@keras.saving.register_keras_serializable(package="edgeheads")
class EnhancementHead(DenseHead):
    """Restores an image: denoising at its own size, or super-resolution by a whole factor.

    With `residual`, the finest map is the image itself, [B, H, W, 3] in [0, 1], in front of the
    backbone's maps, and the head predicts what to add to it (Zhang et al. 2017, "Beyond a
    Gaussian Denoiser", DnCNN), enlarged bilinearly where `scale` says so (Kim et al. 2016, VDSR).
    `build_model` puts the image there. Without, the head paints the image from features alone.

    Args:
        scale: how many times larger than the image the result is; 1 denoises.
        residual: see above.
        upsampling_factor: from the finest map to the image; default 4, and 1 with `residual`,
            where the finest map is the image.
        **options: see `DenseHead`; output_size is that of the image, before `scale`, and not for
            `residual`.

    Returns: image [B, scale * H, scale * W, 3] in [0, 1].
    """

    task = TaskType.ENHANCEMENT
    edge_parts = ("image",)

    def __init__(
        self,
        *,
        scale: int = 1,
        residual: bool = False,
        upsampling_factor: int | None = None,
        **options: Any,
    ) -> None:
        if upsampling_factor is None:
            upsampling_factor = 1 if residual else 4
        super().__init__(upsampling_factor=upsampling_factor, **options)
        self._require(
            "scale",
            scale,
            isinstance(scale, int) and scale >= 1,
            "a whole number, at least 1",
            "scale=2",
        )
        self._require(
            "residual",
            residual,
            not residual or (upsampling_factor == 1 and self.output_size is None),
            f"False with upsampling_factor={upsampling_factor}, output_size={self.output_size}, "
            "since an image to add to has the output's size",
            "residual=True",
        )
        self.scale = scale
        self.residual = residual

    def forward(self, maps: list[Tensor]) -> dict[str, Tensor]:
        """Compute the image from maps, fine to coarse."""
        if self.residual:
            self._require_image(maps)
        x, left = self.decode(maps)
        x = self.at_output_size(x, left, "enlarged")
        x = self.stage("paint", self._paint, x)
        if not self.residual:
            return {"image": self.as_output(x, "image", activation="sigmoid")}
        image = upsample(self.part, maps[0], self.scale, "image_up")
        x = self.part(keras.layers.Add, "residual")([image, x])
        x = self.part(keras.layers.ReLU, "range", max_value=1.0)(x)
        return {"image": self.as_output(x, "image")}

    def _paint(self, x: Tensor) -> Tensor:
        """Colours at the final size. Convolving after enlarging sharpens what was interpolated."""
        x = upsample(self.part, x, self.scale, "paint_up")
        x = self.convolve(x, x.shape[-1], "paint_conv")
        return self.predict(x, _COLORS, "paint_colors")

    def _require_image(self, maps: list[Tensor]) -> None:
        if maps[0].shape[-1] != _COLORS:
            raise EdgeheadsError(
                f"{type(self).__name__}: with residual=True the finest input must be the image "
                f"[B, H, W, 3] in [0, 1], received shape {tuple(maps[0].shape)}; call it as "
                "head([image, *maps]), use build_model, or set residual=False"
            )

    def get_config(self) -> dict[str, Any]:
        """Return the keyword arguments that make an equal head."""
        return {**super().get_config(), "scale": self.scale, "residual": self.residual}
