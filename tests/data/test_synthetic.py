"""Synthetic scenes: the samples. Rays and labels have tests of their own, in scenes/."""

from __future__ import annotations

import hashlib
import math
import os
import subprocess
import sys

import numpy as np
import pytest

from edgeheads.data.sample import Sample
from edgeheads.data.scenes import layout, picture
from edgeheads.data.scenes.raycast import trace
from edgeheads.data.scenes.textures import TEXTURES
from edgeheads.data.synthetic import (
    MAX_DEPTH_M,
    MIN_DEPTH_M,
    RENDERED,
    SyntheticObjects,
    SyntheticScenes,
)
from edgeheads.errors import EdgeheadsError

MAPS = {
    "image": (3, np.uint8),
    "semantic": (None, np.int32),
    "depth": (None, np.float32),
    "normals": (3, np.float32),
}


def digest(sample: Sample) -> str:
    objects = sample.objects
    arrays = [getattr(sample, name) for name in (*MAPS, "keypoints")]
    arrays += [objects.boxes, objects.classes, objects.crowd, objects.masks]
    text = f"{sample.name} {sample.label}".encode()
    return hashlib.sha256(b"".join([text, *(array.tobytes() for array in arrays)])).hexdigest()


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    return list(SyntheticScenes(24, (96, 96), seed=3))


# --- The samples ---


def test_sample_is_complete(samples):
    sample = samples[2]
    assert sample.name == "scene 2 of train, seed 3"
    for name, (channels, dtype) in MAPS.items():
        values = getattr(sample, name)
        assert values.shape == ((96, 96) if channels is None else (96, 96, channels))
        assert values.dtype == dtype
        assert values.flags.c_contiguous
    objects = sample.objects
    count = len(objects)
    assert objects.boxes.shape == (count, 4)
    assert objects.masks.shape == (count, 96, 96)
    assert objects.classes.shape == objects.crowd.shape == (count,)
    assert sample.keypoints.shape == (4, 3)
    assert {array.dtype.name for array in (objects.boxes, sample.keypoints)} == {"float32"}
    assert {array.dtype.name for array in (objects.masks, objects.crowd)} == {"bool"}
    assert objects.classes.dtype == np.int32
    assert isinstance(sample.label, int)


def test_same_seed_same_bytes_in_any_order():
    forwards = [digest(sample) for sample in SyntheticScenes(4, (32, 48), seed=7)]
    again = SyntheticScenes(9, (32, 48), seed=7)
    assert [digest(again[index]) for index in (3, 1, 0, 2)] == [forwards[i] for i in (3, 1, 0, 2)]
    assert len(set(forwards)) == 4


def test_same_bytes_in_another_process():
    """Python's hash() of a string differs between processes; the scenes do not."""
    program = (
        "from test_synthetic import digest, SyntheticScenes;"
        "print(digest(SyntheticScenes(2, (32, 32), seed=5, split='calibration')[1]))"
    )
    paths = [*sys.path, os.path.dirname(__file__)]  # noqa: PTH120
    environment = {**os.environ, "PYTHONHASHSEED": "123", "PYTHONPATH": os.pathsep.join(paths)}
    there = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    here = digest(SyntheticScenes(2, (32, 32), seed=5, split="calibration")[1])
    assert there.stdout.strip() == here


def test_splits_and_seeds_share_no_scene():
    sources = [
        SyntheticScenes(6, (16, 16), seed=seed, split=split)
        for seed, split in (
            (0, "train"),
            (0, "test"),
            (0, "calibration"),
            (1, "train"),
            (11, "train"),
        )
    ]
    depths = [sample.depth.tobytes() for source in sources for sample in source]
    assert len(set(depths)) == len(depths)


def test_depth_is_everywhere_and_in_range():
    """At every allowed aspect, not only square."""
    for size in ((32, 32), (64, 32), (32, 64)):
        for sample in SyntheticScenes(40, size, seed=1):
            assert sample.depth.min() > MIN_DEPTH_M
            assert sample.depth.max() < MAX_DEPTH_M
            assert np.ptp(sample.depth) > 1.0, "a scene without depth teaches none"


def test_farthest_corner_of_any_room_is_in_range():
    for number in range(300):
        scene = layout.random_scene(np.random.default_rng(number), (64, 64))
        corners = np.array(np.meshgrid(*zip(scene.room.lower, scene.room.upper, strict=True)))
        offsets = corners.reshape(3, -1).T - np.array(scene.camera.position)
        assert (offsets @ scene.camera.axes[:, 2]).max() < MAX_DEPTH_M


def test_normals_are_unit_and_face_the_camera(samples):
    y, x = np.mgrid[0:96, 0:96] + 0.5
    focal = 48 / math.tan(math.radians(30))
    rays = np.stack([(x - 48) / focal, (y - 48) / focal, np.ones_like(x)], axis=-1)
    for sample in samples:
        np.testing.assert_allclose(np.linalg.norm(sample.normals, axis=-1), 1, atol=1e-5)
        assert (sample.normals * rays).sum(axis=-1).max() < 0


def test_sample_normals_are_in_the_camera_frame(samples):
    """Depth alone, back-projected with the documented field of view, gives the same normals."""
    focal = 48 / math.tan(math.radians(30))
    y, x = np.mgrid[0:96, 0:96] + 0.5
    for sample in samples[:6]:
        depth = sample.depth.astype(np.float64)
        points = np.stack([(x - 48) / focal * depth, (y - 48) / focal * depth, depth])
        across = points[:, 1:-1, 2:] - points[:, 1:-1, :-2]
        down = points[:, 2:, 1:-1] - points[:, :-2, 1:-1]
        numeric = np.cross(down, across, axis=0)
        numeric /= np.linalg.norm(numeric, axis=0)
        agreement = (numeric * np.moveaxis(sample.normals, -1, 0)[:, 1:-1, 1:-1]).sum(axis=0)
        assert np.quantile(agreement, 0.3) > 0.999


def test_objects_rest_on_something():
    """On the floor, on another object, or under the ceiling: what floats has no learnable depth."""
    kinds = {"floor": 0, "object": 0, "ceiling": 0}
    for number in range(100):
        scene = layout.random_scene(np.random.default_rng(number), (64, 64))
        halves = [layout.half_height_and_reach(shape)[0] for shape in scene.shapes]
        tops = [s.centre[1] - half for s, half in zip(scene.shapes, halves, strict=True)]
        assert 2 <= len(scene.shapes) <= 6
        for shape, half in zip(scene.shapes, halves, strict=True):
            bottom = shape.centre[1] + half
            if bottom == pytest.approx(0):
                kinds["floor"] += 1
            elif any(bottom == pytest.approx(top) for top in tops):
                kinds["object"] += 1
            else:
                assert shape.centre[1] - half == pytest.approx(scene.room.lower[1])
                kinds["ceiling"] += 1
    assert min(kinds.values()) > 5
    assert kinds["floor"] > 100


def test_images_show_something_and_are_not_burnt_out(samples):
    for sample in samples:
        assert sample.image.std() > 10
        assert 40 < sample.image.mean() < 200
        assert (sample.image == 255).mean() < 0.15
        assert (sample.image == 0).mean() < 0.15
    means = [sample.image.mean(axis=(0, 1)) for sample in samples]
    assert np.std(means, axis=0).min() > 5, "exposure and white balance vary"


def test_images_have_sensor_noise_that_the_scene_does_not_explain():
    """Two photographs of one radiance differ by a few grey levels, everywhere."""
    flat = np.full((3, 64, 64), 0.5, np.float32)
    one, other = (picture.photograph(flat, np.random.default_rng(seed)) for seed in (1, 2))
    for image in (one, other):
        noise = np.diff(image[20:44, 20:44].astype(float), axis=1).std() / math.sqrt(2)
        assert 0.3 < noise < 12
    assert (one != other).mean() > 0.5


def test_shadows_darken(monkeypatch):
    """The same scenes without occlusion are brighter, and nowhere darker."""
    scene = layout.random_scene(np.random.default_rng(4), (64, 64))
    camera = scene.camera
    hits = trace(camera, scene.room, scene.shapes, *camera.pixel_centres())
    shaded = picture.shade(scene, hits)
    monkeypatch.setattr(picture, "occluded", lambda shapes, light, points: points[0] > np.inf)
    unshaded = picture.shade(scene, hits)
    assert (shaded <= unshaded + 1e-6).all()
    assert 0.005 < (shaded < 0.98 * unshaded).any(axis=0).mean() < 0.7


@pytest.mark.parametrize("name", sorted(TEXTURES))
def test_textures_stay_in_range_and_fade_when_unresolved(name):
    """A pattern much finer than a pixel becomes its mean instead of aliasing."""
    rng = np.random.default_rng(0)
    lattice = rng.random((64, 64), dtype=np.float32)
    u, v = rng.uniform(-20, 20, (2, 4000)).astype(np.float32)
    fine, coarse = np.full_like(u, 0.01), np.full_like(u, 40.0)
    texture = TEXTURES[name]
    near, far = texture(u, v, fine, fine, lattice), texture(u, v, coarse, coarse, lattice)
    assert near.min() > -1e-3
    assert near.max() < 1 + 1e-3
    assert near.dtype == np.float32
    assert near.std() > 0.02
    assert far.std() < 0.2 * near.std()


# --- Pictures of one object ---


def test_object_fills_much_of_its_picture_and_gives_it_its_class():
    """Its label is that of what is seen most of; the three classes are about equally frequent."""
    shares, labels = [], []
    for sample in SyntheticObjects(60, (48, 64), seed=2):
        areas = sample.objects.areas()
        assert sample.label == sample.objects.classes[areas.argmax()]
        shares.append(areas.max() / (48 * 64))
        labels.append(sample.label)
    assert 0.15 < np.median(shares) < 0.5
    assert np.bincount(labels).min() >= 12


def test_lens_holds_the_whole_object():
    """Its bounding sphere, around the middle of the picture, at any aspect."""
    for number in range(60):
        rng = np.random.default_rng(number)
        scene = layout.random_scene(rng, (64, 40))
        camera = layout.close_up(scene, rng).camera
        found = []
        for shape in scene.shapes:
            across, down, forward = camera.axes.T @ (np.array(shape.centre) - camera.position)
            if np.hypot(across, down) < 1e-4 * forward:
                found.append(shape.bounding_radius / forward * camera.focal_px)
        assert len(found) == 1
        assert 20 / 1.81 < found[0] < 20 / 1.09


def test_rendered_sources_by_name():
    assert list(RENDERED) == ["synthetic", "synthetic-objects"]
    rooms, objects = (RENDERED[name](2, (16, 16))[1] for name in RENDERED)
    assert digest(rooms) != digest(objects)


# --- What is refused ---


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"count": -1}, "count must be at least 0; received count=-1"),
        ({"size": (8, 32)}, r"at least 16 pixels each; received size=\(8, 32\)"),
        ({"size": (16, 64)}, r"at most twice the other.*received size=\(16, 64\)"),
        ({"seed": -2}, "seed must be at least 0; received seed=-2"),
    ],
)
def test_wrong_arguments_are_refused_with_what_came(arguments, message):
    with pytest.raises(EdgeheadsError, match=message):
        SyntheticScenes(**{"count": 1, "size": (32, 32), **arguments})


@pytest.mark.parametrize("index", [3, -1])
def test_index_out_of_range(index):
    scenes = SyntheticScenes(3, (16, 16))
    assert len(scenes) == 3
    with pytest.raises(IndexError, match=rf"index must be in \[0, 3\); received index={index}"):
        scenes[index]


def test_no_scenes_is_a_valid_source():
    assert list(SyntheticScenes(0, (16, 16))) == []


def test_renderer_imports_neither_tensorflow_nor_pillow():
    program = (
        "import sys, edgeheads.data.synthetic;"
        "print(sorted({'tensorflow', 'keras', 'PIL', 'scipy'} & set(sys.modules)))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    found = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "[]"
