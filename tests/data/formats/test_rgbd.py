"""RGB-D folders: readings, gaps, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgeheads.data.formats.listing import ReadOptions
from edgeheads.data.formats.rgbd import detect, read, read_depth
from edgeheads.data.sample import Sample
from edgeheads.errors import EdgeheadsError


def write_pair(
    folder: Path, stem: str, raw: np.ndarray, size: tuple[int, int] | None = None
) -> None:
    (folder / "color").mkdir(parents=True, exist_ok=True)
    (folder / "depth").mkdir(parents=True, exist_ok=True)
    height, width = size or raw.shape
    Image.new("RGB", (width, height), (10, 20, 30)).save(folder / "color" / f"{stem}.jpg")
    Image.fromarray(raw).save(folder / "depth" / f"{stem}.png")


def samples(folder: Path) -> list[Sample]:
    return [entry.load() for entry in read(folder, ReadOptions()).splits[""]]


def test_millimetres_become_metres_and_gaps_become_zero(tmp_path: Path) -> None:
    write_pair(tmp_path, "a", np.array([[0, 1500], [65535, 65534]], np.uint16))
    [sample] = samples(tmp_path)
    np.testing.assert_allclose(sample.depth, [[0, 1.5], [0, 65.534]], rtol=1e-6)
    assert sample.image.shape == (2, 2, 3)
    assert sample.name.endswith("a.jpg")


def test_depth_unit_scales_integers_only(tmp_path: Path) -> None:
    write_pair(tmp_path, "a", np.array([[2000]], np.uint16))
    np.save(tmp_path / "metres.npy", np.array([[2.5, np.nan, np.inf, -1.0]], np.float32))
    assert read_depth(tmp_path / "depth" / "a.png", 0.0002).tolist() == [[pytest.approx(0.4)]]
    assert read_depth(tmp_path / "metres.npy", 0.0002).tolist() == [[2.5, 0, 0, 0]]


def test_pairs_come_in_the_order_of_their_names(tmp_path: Path) -> None:
    for stem in ("b", "a", "c"):
        write_pair(tmp_path, stem, np.array([[1]], np.uint16))
    names = [entry.name for entry in read(tmp_path, ReadOptions()).splits[""]]
    assert names == ["color/a.jpg", "color/b.jpg", "color/c.jpg"]
    assert len(samples(tmp_path)) == 3


def test_depth_of_another_size_is_refused(tmp_path: Path) -> None:
    write_pair(tmp_path, "a", np.array([[1, 2]], np.uint16), size=(4, 6))
    with pytest.raises(EdgeheadsError, match=r"expected 6x4, received 2x1; register the depth"):
        samples(tmp_path)


def test_map_without_a_reading_is_refused(tmp_path: Path) -> None:
    write_pair(tmp_path, "a", np.array([[0, 65535]], np.uint16))
    with pytest.raises(EdgeheadsError, match=r"a\.png has no reading: every pixel is 0, 65535"):
        samples(tmp_path)


def test_eight_bits_are_no_depth(tmp_path: Path) -> None:
    Image.fromarray(np.array([[7]], np.uint8)).save(tmp_path / "d.png")
    with pytest.raises(EdgeheadsError, match="has 8 bits a pixel; expected 16-bit integers"):
        read_depth(tmp_path / "d.png", 0.001)


def test_rendering_of_depth_is_no_depth(tmp_path: Path) -> None:
    Image.new("RGB", (2, 2)).save(tmp_path / "d.png")
    with pytest.raises(EdgeheadsError, match=r"must have one channel, received shape \(2, 2, 3\)"):
        read_depth(tmp_path / "d.png", 0.001)


def test_picture_without_depth_is_refused(tmp_path: Path) -> None:
    for stem in ("a", "b"):
        write_pair(tmp_path, stem, np.array([[1]], np.uint16))
    (tmp_path / "depth" / "b.png").unlink()
    first, second = read(tmp_path, ReadOptions()).splits[""]
    assert first.load().depth is not None
    with pytest.raises(
        EdgeheadsError, match=r"b\.jpg has no depth map of the same name in .*depth"
    ):
        second.load()


def test_folder_names_are_said(tmp_path: Path) -> None:
    with pytest.raises(EdgeheadsError, match="no folder of pictures; expected one called color or"):
        read(tmp_path, ReadOptions())
    assert not detect(tmp_path)


def test_predefined_splits(tmp_path: Path) -> None:
    for split, stem in (("train", "a"), ("test", "b")):
        write_pair(tmp_path / split, stem, np.array([[1]], np.uint16))
    assert detect(tmp_path)
    splits = read(tmp_path, ReadOptions()).splits
    assert {split: [entry.name for entry in part] for split, part in splits.items()} == {
        "train": ["train/color/a.jpg"],
        "test": ["test/color/b.jpg"],
    }


def test_archive_that_is_called_npy_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "d.npy").open("wb") as file:
        np.savez(file, depth=np.ones((2, 2)))
    with pytest.raises(EdgeheadsError, match=r"d\.npy cannot be read \(it is an archive"):
        read_depth(tmp_path / "d.npy", 0.001)
    (tmp_path / "d.npy").write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(EdgeheadsError, match=r"d\.npy cannot be read \("):
        read_depth(tmp_path / "d.npy", 0.001)


def test_pickled_depth_is_not_loaded(tmp_path: Path) -> None:
    np.save(tmp_path / "d.npy", np.array([{"a": 1}], object), allow_pickle=True)
    with pytest.raises(EdgeheadsError, match=r"d\.npy cannot be read \(Object arrays cannot"):
        read_depth(tmp_path / "d.npy", 0.001)


@pytest.mark.skipif(
    not Path(__file__).parents[3].joinpath("../shared/data/depth_rgbd").is_dir(),
    reason="../shared/data/depth_rgbd is not there",
)
def test_real_frames_are_read() -> None:
    folder = Path(__file__).parents[3] / "../shared/data/depth_rgbd"
    entries = read(folder, ReadOptions()).splits[""]
    assert len(entries) == 100
    depth = entries[0].load().depth
    assert depth is not None
    assert depth.shape == (480, 640)
    assert 0.3 < depth[depth > 0].min() < depth.max() < 10
