"""Reading and resizing pictures, with Pillow."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgeheads.errors import EdgeheadsError, MissingDependencyError

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["IMAGE_SUFFIXES", "open_image", "read_rgb", "resize_nearest", "resize_rgb"]

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")

# A picture of more pixels than this is refused before it is unpacked.
MAX_PIXELS = 100_000_000


def _pillow() -> Any:
    try:
        from PIL import Image, ImageOps
    except ImportError:
        raise MissingDependencyError("pillow", "images", "reading an image") from None
    return Image, ImageOps


def open_image(path: Path) -> Image.Image:
    """Return the picture, unpacked.

    Raises:
        EdgeheadsError: the file does not exist, is no picture, is damaged, or is too large.
    """
    image_module, _ = _pillow()
    if not path.is_file():
        raise EdgeheadsError(f"image {path} does not exist")
    try:
        with image_module.open(path) as image:
            if image.width * image.height > MAX_PIXELS:
                raise EdgeheadsError(
                    f"image {path} has {image.width}x{image.height} pixels, "
                    f"more than the {MAX_PIXELS} allowed; resize it first"
                )
            image.load()
            opened: Image.Image = image
            return opened
    except EdgeheadsError:
        raise
    except Exception as error:  # each of Pillow's decoders has its own
        raise EdgeheadsError(
            f"image {path} cannot be read ({' '.join(str(error).split())}); "
            f"expected an undamaged {', '.join(IMAGE_SUFFIXES)} file"
        ) from None


def read_rgb(path: Path) -> NDArray[np.uint8]:
    """Return a picture as [H, W, 3] uint8 RGB, upright, alpha blended onto black."""
    _, operations = _pillow()
    image = operations.exif_transpose(open_image(path))
    if image.mode in ("I", "I;16", "F"):
        raise EdgeheadsError(
            f"image {path} has one channel of more than 8 bits (mode {image.mode}), "
            "expected an 8-bit colour or grey picture"
        )
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        black = _pillow()[0].new("RGBA", image.size, (0, 0, 0, 255))
        black.alpha_composite(image)
        image = black
    return np.asarray(image.convert("RGB"))


def resize_rgb(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return the image [H, W, 3] at (height, width): bilinear, antialiased where it shrinks."""
    if image.shape[:2] == tuple(size):
        return image
    image_module, _ = _pillow()
    resized = image_module.fromarray(image).resize(
        (size[1], size[0]), image_module.Resampling.BILINEAR
    )
    return np.asarray(resized)


def resize_nearest(values: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """Return a map [H, W, ...] at (height, width), each value taken from the nearest position.

    The only honest resize for depth and ids: it invents no values between two surfaces.
    """
    if values.shape[:2] == tuple(size):
        return values
    rows = ((np.arange(size[0]) + 0.5) * values.shape[0] / size[0]).astype(np.intp)
    columns = ((np.arange(size[1]) + 0.5) * values.shape[1] / size[1]).astype(np.intp)
    return values[rows[:, None], columns[None, :]]
