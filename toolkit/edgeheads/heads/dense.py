"""What heads with an output for every pixel share: the decoder and the output's size."""

from __future__ import annotations

from typing import Any

import keras

from edgeheads.heads.base import BaseVisionHead
from edgeheads.heads.layers.conv import resize_to
from edgeheads.heads.layers.inputs import static_sizes
from edgeheads.heads.layers.part import Tensor, pair

__all__ = ["DenseHead"]

_MIN_DECODER_WIDTH = 16
# Beyond this, one bilinear resize shows its blocks; the decoder doubles first.
_MAX_FINAL_FACTOR = 4


class DenseHead(BaseVisionHead):
    """A head whose outputs are maps.

    Args:
        upsampling_factor: how many times larger than the finest input map the output is.
        output_size: (height, width) of the output; replaces upsampling_factor.
        use_skip_connections: add the finer maps on the way from the coarsest one to the output;
            without, the coarsest map alone is decoded.
        **options: see `BaseVisionHead`.
    """

    output_follows_input = True

    def __init__(
        self,
        *,
        upsampling_factor: int = 4,
        output_size: tuple[int, int] | None = None,
        use_skip_connections: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self._require(
            "upsampling_factor",
            upsampling_factor,
            isinstance(upsampling_factor, int) and upsampling_factor >= 1,
            "a whole number, at least 1",
            "upsampling_factor=4",
        )
        self._require(
            "output_size",
            output_size,
            output_size is None or (len(output_size) == 2 and min(output_size) >= 1),
            "(height, width) in pixels",
            "output_size=(224, 224)",
        )
        self.upsampling_factor = upsampling_factor
        self.output_size = pair(output_size)
        self.use_skip_connections = use_skip_connections

    @property
    def reads_finer_maps(self) -> bool:
        """Without skip connections, the finer maps give no more than their sizes."""
        return self.use_skip_connections

    def decode(self, maps: list[Tensor]) -> tuple[Tensor, int]:
        """Climb from the coarsest map to the finest, halving the channels at each step.

        Args:
            maps: fine to coarse.

        Returns:
            The decoded map, and the factor that is left for `at_output_size`.
        """
        sizes = static_sizes(maps)
        left = self.upsampling_factor
        if self.output_size and sizes[0][0]:
            left = max(1, self.output_size[0] // sizes[0][0])
        x, width = self.context(maps[-1]), self.hidden_dim
        for index in range(len(maps) - 2, -1, -1):
            lateral = maps[index] if self.use_skip_connections else None
            width = max(_MIN_DECODER_WIDTH, width // 2)
            x = self.climb(x, lateral, sizes[index], width, f"decoder_{index}")
        step = 0
        while left > _MAX_FINAL_FACTOR and left % 2 == 0:
            width = max(_MIN_DECODER_WIDTH, width // 2)
            x = self.climb(x, None, 2, width, f"refine_{step}")
            left, step = left // 2, step + 1
        return x, left

    def predict(self, x: Tensor, channels: int, name: str, **options: Any) -> Tensor:
        """The last 1x1 convolution of an output."""
        conv = self.part(keras.layers.Conv2D, name, filters=channels, kernel_size=1, **options)
        return conv(x)

    def at_output_size(self, x: Tensor, left: int, name: str) -> Tensor:
        """Enlarge a map to the output's size: by `left`, or to `output_size`."""
        return resize_to(self.part, x, self.output_size or left, name)

    def get_config(self) -> dict[str, Any]:
        """Return the keyword arguments that make an equal head."""
        return {
            **super().get_config(),
            "upsampling_factor": self.upsampling_factor,
            "output_size": self.output_size,
            "use_skip_connections": self.use_skip_connections,
        }
