"""Errors name what was expected, what came, and what to do."""

from __future__ import annotations

from edgeheads.errors import MissingDependencyError, unknown_name


def test_unknown_name_lists_close_matches_first() -> None:
    text = str(unknown_name("backbone", "mobilnet_v2", ["mobilenet_v2", "resnet50"]))
    assert text == "unknown backbone 'mobilnet_v2'; did you mean mobilenet_v2?"


def test_unknown_name_lists_all_where_nothing_is_close() -> None:
    text = str(unknown_name("backbone", "zzz", ["b", "a"]))
    assert text == "unknown backbone 'zzz'; known: a, b"


def test_missing_dependency_names_the_command() -> None:
    text = str(MissingDependencyError("pillow", "images", "reading an image"))
    assert text == (
        "reading an image needs pillow, which is not installed; "
        'run: pip install "edgeheads[images]"'
    )
