"""Masks: palettes, numbers, cut-outs with soft edges, and sizes that differ."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from folders import HEIGHT, WIDTH, mask, mask_folders, picture, rectangle
from PIL import Image

from edgeheads.data.formats.listing import Listing, ReadOptions
from edgeheads.data.formats.mask_folders import read
from edgeheads.data.sample import IGNORED, Sample
from edgeheads.errors import EdgeheadsError

SHARED = Path(__file__).resolve().parents[3] / "../shared/data/segmentation_person"


def one_mask(folder: Path, values: np.ndarray) -> tuple[Listing, Sample]:
    picture(folder / "images" / "a.png")
    mask(folder / "masks" / "a.png", values)
    listing = read(folder, ReadOptions())
    return listing, listing.splits[""][0].load()


def test_numbers_are_classes_and_255_counts_for_nothing(tmp_path: Path) -> None:
    values = rectangle(3, 4, 20, 15, value=3)
    values[0] = 255
    listing, sample = one_mask(tmp_path, values)
    assert listing.names.semantic == ("class 0", "class 1", "class 2", "class 3")
    assert set(np.unique(sample.semantic)) == {IGNORED, 0, 3}
    assert (sample.semantic[0] == IGNORED).all()


def test_cut_out_with_soft_edges(tmp_path: Path) -> None:
    values = rectangle(3, 4, 20, 15, value=255)
    values[4, 3:20], values[14, 3:20] = 128, 127
    listing, sample = one_mask(tmp_path, values)
    assert listing.names.semantic == ("background", "foreground")
    assert np.array_equal(sample.semantic, rectangle(3, 4, 20, 14))


def test_black_and_white(tmp_path: Path) -> None:
    listing, sample = one_mask(tmp_path, rectangle(3, 4, 20, 15, value=255))
    assert listing.names.semantic == ("background", "foreground")
    assert np.array_equal(sample.semantic, rectangle(3, 4, 20, 15))


def test_one_bit(tmp_path: Path) -> None:
    listing, sample = one_mask(tmp_path, rectangle(3, 4, 20, 15).astype(bool))
    assert listing.names.semantic == ("background", "foreground")
    assert np.array_equal(sample.semantic, rectangle(3, 4, 20, 15))


def test_palette_gives_its_indices(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "a.png")
    values = rectangle(3, 4, 20, 15, value=1)
    values[0] = 255
    image = Image.fromarray(values).convert("P")
    image.putdata(values.ravel().tolist())
    image.putpalette([0, 0, 0, 128, 0, 0] + [224, 224, 192] * 254)
    (tmp_path / "masks").mkdir()
    image.save(tmp_path / "masks" / "a.png")
    listing = read(tmp_path, ReadOptions())
    sample = listing.splits[""][0].load()
    assert listing.names.semantic == ("class 0", "class 1")
    assert np.array_equal(sample.semantic[1:], values[1:])
    assert (sample.semantic[0] == IGNORED).all()


def test_grey_saved_as_colour_with_alpha_is_grey(tmp_path: Path) -> None:
    values = rectangle(3, 4, 20, 15, value=1)
    alpha = np.full_like(values, 9)
    _, sample = one_mask(tmp_path, np.stack([values, values, values, alpha], axis=-1))
    assert np.array_equal(sample.semantic, values)


def test_colours_are_no_classes(tmp_path: Path) -> None:
    mask_folders(tmp_path, 2)
    noise = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
    mask(tmp_path / "masks" / "1.png", noise)
    first, second = read(tmp_path, ReadOptions()).splits[""]
    assert first.load().semantic is not None
    with pytest.raises(EdgeheadsError, match=r"1\.png is in colour \(mode RGB\); expected"):
        second.load()


def test_labels_txt_names_the_classes_and_bounds_them(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("sky\nroad\ncar\n")
    listing, sample = one_mask(tmp_path, rectangle(0, 0, 5, 5, value=2))
    assert listing.names.semantic == ("sky", "road", "car")
    assert sample.semantic.max() == 2
    with pytest.raises(
        EdgeheadsError, match=r"a\.png holds the class 3, expected 0 to 2, or 255 for"
    ):
        one_mask(tmp_path, rectangle(0, 0, 5, 5, value=3))


@pytest.mark.parametrize("names", ["person\n", "background\nperson\n"])
def test_labels_txt_names_what_is_cut_out(tmp_path: Path, names: str) -> None:
    (tmp_path / "labels.txt").write_text(names)
    listing, sample = one_mask(tmp_path, rectangle(0, 0, 5, 5, value=255))
    assert listing.names.semantic == ("background", "person")
    assert sample.semantic.sum() == 25


def test_sixteen_bits_need_names(tmp_path: Path) -> None:
    with pytest.raises(EdgeheadsError, match=r"hold numbers up to 4000, .*labels\.txt"):
        one_mask(tmp_path, rectangle(0, 0, 5, 5).astype(np.uint16) * 4000)


def test_mask_of_the_same_aspect_ratio_is_resized_and_said(tmp_path: Path) -> None:
    half = rectangle(4, 4, 20, 16)[::2, ::2]
    _, sample = one_mask(tmp_path, half)
    assert np.array_equal(sample.semantic, rectangle(4, 4, 20, 16))
    assert sample.problems == (
        f"{tmp_path}/images/a.png: mask of another size than its image, resized to it; "
        "received 16x12 for an image of 32x24",
    )


def test_mask_of_another_aspect_ratio_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        EdgeheadsError, match=r"masks/a\.png is 20x24 for an image of 32x24, another aspect ratio"
    ):
        one_mask(tmp_path, np.ones((24, 20), np.uint8))


def test_mask_drawn_on_the_stored_side_of_a_rotated_photo(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "images").mkdir()
    photo = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    Image.fromarray(photo).save(tmp_path / "images" / "a.jpg", exif=exif)
    mask(tmp_path / "masks" / "a.png", np.ones((WIDTH, HEIGHT), np.uint8))
    [entry] = read(tmp_path, ReadOptions()).splits[""]
    assert entry.load().image.shape == (WIDTH, HEIGHT, 3)
    assert entry.load().problems == ()
    mask(tmp_path / "masks" / "a.png", rectangle(3, 4, 20, 15))
    [entry] = read(tmp_path, ReadOptions()).splits[""]
    assert entry.load().image.shape == (HEIGHT, WIDTH, 3)
    assert "before its EXIF rotation, which is not applied" in entry.load().problems[0]


def test_files_that_lack_each_other(tmp_path: Path) -> None:
    mask_folders(tmp_path, 3)
    (tmp_path / "masks" / "0.png").unlink()
    (tmp_path / "images" / "1.png").unlink()
    listing = read(tmp_path, ReadOptions())
    with pytest.raises(EdgeheadsError, match=r"0\.png has no mask of the same name; add it"):
        listing.splits[""][0].load()
    assert "1.png has no picture of the same name in" in listing.problems[0]


def test_masks_that_changed_are_looked_at_again(tmp_path: Path) -> None:
    assert one_mask(tmp_path, rectangle(0, 0, 5, 5, 1))[0].names.semantic[-1] == "class 1"
    values = rectangle(0, 0, 9, 7, 3)
    assert one_mask(tmp_path, values)[0].names.semantic[-1] == "class 3"


@pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/data/segmentation_person is not there")
def test_real_portraits() -> None:
    listing = read(SHARED, ReadOptions())
    samples = [entry.load() for entry in listing.splits[""]]
    assert len(samples) == 200
    assert sum(bool(sample.problems) for sample in samples) == 117
    share = np.mean([sample.semantic.mean() for sample in samples])
    assert 0.2 < share < 0.5
