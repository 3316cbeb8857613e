"""Linting a file beside the recipe it was trained by, or beside another's."""

from __future__ import annotations

from pathlib import Path

import pytest

keras = pytest.importorskip("keras")
pytest.importorskip("tensorflow")

from edgeheads.compression.lint.run import lint_file  # noqa: E402
from edgeheads.errors import EdgeheadsError  # noqa: E402
from edgeheads.progress import SilentProgress  # noqa: E402
from edgeheads.recipe import Recipe  # noqa: E402


def test_a_recipe_of_another_model_is_named(tmp_path: Path) -> None:
    """A file of one's own may lie beside a recipe that has nothing to do with it."""
    image = keras.Input((8, 8, 8))
    file = tmp_path / "mine.keras"
    keras.Model(image, keras.layers.Activation("hard_swish")(image)).save(file)
    recipe = Recipe(name="other", task="depth", input_size=(64, 64))
    with pytest.raises(EdgeheadsError) as raised:
        lint_file(file, recipe=recipe, progress=SilentProgress())
    text = str(raised.value)
    assert text.startswith(f"{file} is not of the recipe beside it, {tmp_path / 'recipe.yaml'} of")
    assert text.endswith("move the recipe away to lint all of the model")
    found = lint_file(file, progress=SilentProgress()).findings
    assert [one.rule for one in found] == ["hard-swish"]
