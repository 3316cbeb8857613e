from __future__ import annotations

import subprocess
import sys

import pytest

from edgeheads.backbones import BACKBONES, create_backbone
from edgeheads.errors import EdgeheadsError

pytest.importorskip("keras")


def test_the_table_is_read_without_keras() -> None:
    code = (
        "import sys, edgeheads.backbones as b; b.BACKBONES; "
        "sys.exit(bool({'keras', 'tensorflow', 'keras_hub'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_unknown_name_lists_close_matches() -> None:
    with pytest.raises(EdgeheadsError, match=r"unknown backbone 'mobilnet_v2'.*mobilenet_v2"):
        create_backbone("mobilnet_v2", (64, 64, 3))


@pytest.mark.parametrize("shape", [(64, 64), (64, 64, 1), (16, 64, 3)])
def test_an_input_shape_that_is_no_image_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(EdgeheadsError, match=r"at least 32, received"):
        create_backbone("tiny", shape)


@pytest.mark.parametrize(
    ("name", "widths"),
    [
        ("mobilenet", "(0.25, 0.5, 0.75, 1.0)"),
        ("mobilenet_v2", "(0.35, 0.5, 0.75, 1.0, 1.3, 1.4)"),
        ("mobilenet_v3_large", "(0.35, 0.5, 0.75, 1.0, 1.25)"),
        ("efficientnet_b3", "(1.0,)"),
        ("resnet50", "(1.0,)"),
        ("nasnet_mobile", "(1.0,)"),
        ("yolo12_n", "(0.25, 0.5, 0.75, 1.0)"),
        ("tiny", "(0.5, 1.0, 2.0)"),
    ],
)
def test_a_width_the_family_does_not_have_lists_those_it_has(name: str, widths: str) -> None:
    with pytest.raises(EdgeheadsError) as error:
        create_backbone(name, (64, 64, 3), width=0.9)
    assert str(error.value) == f"{name}: width must be one of {widths}, received 0.9"


def test_width_multiplies_channels() -> None:
    channels = {
        width: [
            level.channels
            for level in create_backbone("tiny", (64, 64, 3), width=width).pyramid.values()
        ]
        for width in (0.5, 1.0, 2.0)
    }
    assert channels[2.0] == [2 * count for count in channels[1.0]]
    assert channels[0.5] == [count // 2 for count in channels[1.0]]


def test_levels_keep_the_order_of_the_pyramid() -> None:
    backbone = create_backbone("tiny", (64, 64, 3), levels=["P4", "P2"])
    assert list(backbone.pyramid) == ["P2", "P4"]


def test_unknown_and_missing_levels_are_refused() -> None:
    with pytest.raises(EdgeheadsError, match="unknown level of tiny 'P6'"):
        create_backbone("tiny", (64, 64, 3), levels=["P6"])
    with pytest.raises(EdgeheadsError, match="at least one of"):
        create_backbone("tiny", (64, 64, 3), levels=[])


@pytest.mark.parametrize(("name", "multiple"), [("yolo12_n", 32), ("tiny_vit", 16)])
def test_a_side_that_cannot_be_divided_is_refused(name: str, multiple: int) -> None:
    with pytest.raises(EdgeheadsError, match=f"multiples of {multiple}, received"):
        create_backbone(name, (64, 72, 3))


@pytest.mark.parametrize("size", [(65, 97), (50, 70)])
@pytest.mark.parametrize("name", ["tiny", "mobilenet_v3_small_minimalistic"])
def test_odd_sizes_keep_their_nominal_strides(name: str, size: tuple[int, int]) -> None:
    pyramid = create_backbone(name, (*size, 3)).pyramid
    assert {level: x.stride for level, x in pyramid.items()} == {f"P{k}": 2**k for k in range(1, 6)}


def test_every_entry_names_a_family_module() -> None:
    import importlib

    for family in set(BACKBONES.values()) - {"hub"}:
        assert callable(importlib.import_module(f"edgeheads.backbones.{family}").create)
