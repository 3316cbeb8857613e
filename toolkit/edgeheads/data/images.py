"""Reading and resizing pictures, with Pillow."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgeheads.errors import EdgeheadsError, MissingDependencyError

if TYPE_CHECKING:
    from PIL import Image

__all__ = [
    "IMAGE_SUFFIXES",
    "open_image",
    "read_ids",
    "read_rgb",
    "resize_nearest",
    "resize_rgb",
]

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")

# A picture of more pixels than this is refused before it is unpacked.
MAX_PIXELS = 100_000_000


def _pillow() -> Any:
    try:
        from PIL import Image, ImageOps
    except ImportError:
        raise MissingDependencyError("pillow", "images", "reading an image") from None
    return Image, ImageOps


@contextmanager
def _without_bomb_warning() -> Iterator[None]:
    """Leave it to `MAX_PIXELS` what is too large; Pillow would warn of less."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Image size .* exceeds limit")
        yield


def open_image(path: Path) -> Image.Image:
    """Return the picture, unpacked.

    Raises:
        EdgeheadsError: the file does not exist, is no picture, is damaged, or is too large.
    """
    image_module, _ = _pillow()
    if not path.is_file():
        raise EdgeheadsError(f"image {path} does not exist")
    try:
        with _without_bomb_warning(), image_module.open(path) as image:
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


def read_rgb(path: Path, *, upright: bool = True) -> NDArray[np.uint8]:
    """Return a picture as [H, W, 3] uint8 RGB, alpha blended onto black.

    Args:
        path: of the file.
        upright: turn it as its EXIF orientation asks, which viewers do.
    """
    _, operations = _pillow()
    image = open_image(path)
    if upright:
        image = operations.exif_transpose(image)
    # "I;16", "I;16B" and so on are 16 bits in one byte order or the other.
    if image.mode.startswith(("I", "F")):
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


def read_ids(path: Path) -> tuple[NDArray[np.integer[Any]], bool]:
    """Return a map of numbers [H, W], upright, and whether they are indices of a palette.

    Grey of 1, 8 or 16 bits gives its values, a palette its indices; alpha is left out.

    Raises:
        EdgeheadsError: the file cannot be read, or is in colour.
    """
    _, operations = _pillow()
    image = operations.exif_transpose(open_image(path))
    palette = image.mode in ("P", "PA")
    values = np.asarray(image.convert("L") if image.mode == "1" else image)
    if values.ndim == 3:
        # Grey that was saved as colour; the last channel of 2 or 4 is alpha.
        colors = values[..., : values.shape[2] - (values.shape[2] % 2 == 0)]
        if (colors != colors[..., :1]).any():
            raise EdgeheadsError(
                f"mask {path} is in colour (mode {image.mode}); expected a palette or grey PNG "
                "whose values are class numbers"
            )
        values = colors[..., 0]
    if not np.issubdtype(values.dtype, np.integer):
        raise EdgeheadsError(
            f"mask {path} has values of {values.dtype}, expected integers; save it as a grey PNG"
        )
    return values, palette


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
