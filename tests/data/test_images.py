"""Pictures as people have them: rotated, transparent, grey, broken."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgeheads.data import images
from edgeheads.data.images import read_ids, read_rgb, resize_nearest, resize_rgb
from edgeheads.errors import EdgeheadsError


def test_rotation_flag_of_a_camera_is_obeyed(tmp_path: Path) -> None:
    picture = Image.new("RGB", (4, 2))
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(tmp_path / "a.jpg", exif=exif)
    assert read_rgb(tmp_path / "a.jpg").shape == (4, 2, 3)
    assert read_rgb(tmp_path / "a.jpg", upright=False).shape == (2, 4, 3)


@pytest.mark.parametrize("mode", ["L", "P", "LA", "RGBA", "CMYK", "1"])
def test_every_8_bit_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    suffix = "tif" if mode == "CMYK" else "png"
    Image.new("RGB", (3, 2), (200, 200, 200)).convert(mode).save(tmp_path / f"a.{suffix}")
    rgb = read_rgb(tmp_path / f"a.{suffix}")
    assert (rgb.shape, rgb.dtype) == ((2, 3, 3), np.uint8)


def test_transparent_is_black_not_garbage(tmp_path: Path) -> None:
    Image.new("RGBA", (1, 1), (255, 0, 0, 0)).save(tmp_path / "a.png")
    assert read_rgb(tmp_path / "a.png").tolist() == [[[0, 0, 0]]]


def test_sixteen_bits_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((2, 2), np.uint16)).save(tmp_path / "a.png")
    with pytest.raises(EdgeheadsError, match="one channel of more than 8 bits"):
        read_rgb(tmp_path / "a.png")


def test_sixteen_bits_of_the_other_byte_order_are_refused_as_well(tmp_path: Path) -> None:
    Image.fromarray(np.full((2, 2), 300, ">u2")).save(tmp_path / "a.tif")
    with pytest.raises(EdgeheadsError, match="one channel of more than 8 bits"):
        read_rgb(tmp_path / "a.tif")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_ids_of_grey_pictures_are_their_values(tmp_path: Path, dtype: type) -> None:
    values = np.array([[0, 7], [200, np.iinfo(dtype).max]], dtype)
    Image.fromarray(values).save(tmp_path / "a.png")
    ids, palette = read_ids(tmp_path / "a.png")
    assert ids.tolist() == values.tolist()
    assert not palette


def test_ids_of_a_palette_are_its_indices_not_its_colours(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1), 3)
    image.putpalette([9, 9, 9] * 256)
    image.save(tmp_path / "a.png")
    ids, palette = read_ids(tmp_path / "a.png")
    assert ids.tolist() == [[3, 3]]
    assert palette


@pytest.mark.parametrize("mode", ["LA", "RGB", "RGBA"])
def test_ids_of_grey_that_was_saved_in_colour(tmp_path: Path, mode: str) -> None:
    Image.new("L", (2, 1), 5).convert(mode).save(tmp_path / "a.png")
    assert read_ids(tmp_path / "a.png")[0].tolist() == [[5, 5]]


def test_ids_in_colour_are_refused(tmp_path: Path) -> None:
    Image.new("RGB", (2, 1), (1, 2, 3)).save(tmp_path / "a.png")
    with pytest.raises(
        EdgeheadsError, match=r"a\.png is in colour \(mode RGB\); expected a palette"
    ):
        read_ids(tmp_path / "a.png")
    Image.new("F", (2, 1)).save(tmp_path / "a.tif")
    with pytest.raises(EdgeheadsError, match="values of float32, expected integers"):
        read_ids(tmp_path / "a.tif")


@pytest.mark.parametrize("content", [b"", b"no picture", b"\xff\xd8\xff\xe0 cut"])
def test_damaged_file_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(EdgeheadsError, match=r"image .*a\.jpg cannot be read \("):
        read_rgb(tmp_path / "a.jpg")


def test_truncated_file_is_an_error_not_half_a_picture(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.jpg")
    content = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(content[: len(content) // 2])
    with pytest.raises(EdgeheadsError, match="truncated"):
        read_rgb(tmp_path / "a.jpg")


def test_bomb_is_refused_before_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("L", (20, 20)).save(tmp_path / "a.png")
    monkeypatch.setattr(images, "MAX_PIXELS", 399)
    with pytest.raises(EdgeheadsError, match="20x20 pixels, more than the 399 allowed"):
        read_rgb(tmp_path / "a.png")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(EdgeheadsError, match=r"a\.jpg does not exist"):
        read_rgb(tmp_path / "a.jpg")


def test_nearest_takes_pixel_centres_and_invents_nothing() -> None:
    values = np.arange(16).reshape(4, 4)
    assert resize_nearest(values, (2, 2)).tolist() == [[5, 7], [13, 15]]
    assert resize_nearest(values[:1, :2], (2, 4)).tolist() == [[0, 0, 1, 1], [0, 0, 1, 1]]


def test_shrinking_averages() -> None:
    """Without antialiasing, a one-pixel checkerboard would become all black or all white."""
    board = np.indices((64, 64)).sum(axis=0) % 2 * 255
    image = np.repeat(board[..., None], 3, axis=-1).astype(np.uint8)
    assert np.abs(resize_rgb(image, (8, 8)).astype(int) - 127).max() < 20
