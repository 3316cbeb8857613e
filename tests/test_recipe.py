"""Recipes are strict: what is misspelt or of the wrong type never becomes a default."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from edgeheads.errors import EdgeheadsError
from edgeheads.recipe import Recipe, list_recipes, load_recipe, recipe_to_yaml
from edgeheads.resources import resource_dir

MINIMAL = "task: depth\ninput_size: 64\n"


def write(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def problem(folder: Path, text: str) -> str:
    path = write(folder, text)
    with pytest.raises(EdgeheadsError) as caught:
        load_recipe(path)
    return str(caught.value).replace(str(path), "PATH")


@pytest.mark.parametrize("name", list_recipes())
def test_shipped_recipe_is_named_by_the_grammar(name: str) -> None:
    recipe = load_recipe(name)
    side = recipe.input_size[0]
    assert name == f"{recipe.task}-{recipe.backbone.name}_{recipe.backbone.width:g}-{side}"
    assert recipe.name == name


def test_there_are_recipes() -> None:
    assert "depth-mobilenet_v2_0.35-128" in list_recipes()


def test_every_field_survives_yaml_with_no_default_left(tmp_path: Path) -> None:
    recipe = load_recipe(
        write(
            tmp_path,
            """
            name: other
            task: depth
            input_size: [96, 160]
            backbone: {name: mobilenet_v2, width: 0.5, levels: [P3, P5], weights: a.npz}
            head: {preset: default, options: {min_depth: 0.2, attention_type: cbam}}
            data: {source: pictures, train_samples: 7, test_samples: 3, split: hash,
                   test_fraction: 0.4, depth_unit: 0.00025, format: rgbd, strict: true,
                   keypoint_crops: true}
            training: {steps: 9, batch_size: 2, learning_rate: 1e-5, weight_decay: 0.5,
                       warmup_fraction: 0.25, augment: false, frozen_fraction: 0.5,
                       backbone_rate: 0.1, clip_norm: 1.0, ema_decay: 0.99,
                       precision: mixed_bfloat16, recompute: true, validation_fraction: 0.2,
                       validations: 3, patience: 2, task_weights: {depth: 1e-1}}
            prune: {target: latency=0.6, importance: l1, normalization: max, scope: layer,
              multiple: 4, min_fraction: 0.3, precision: int8, gradient_batches: 2, rounds: 3,
              recover_steps: 5, recover_rate: 0.1, distill: 0.25, sparsity: 0.5,
              pattern: "2:4"}
            quantize_aware: {steps: 5, rate: 0.25, observer: moving_average}
            export: {precisions: [float16], calibration_samples: 11, max_drop: 0.25,
                     calibration: percentile, fast_for: xnnpack}
            seed: 42
            """,
        )
    )
    defaults = load_recipe(write(tmp_path, MINIMAL)).values()
    for section, values in recipe.values().items():
        if isinstance(values, dict):
            same = {key for key in values if values[key] == defaults[section][key]}
            assert same <= {"name"}, section
    again = load_recipe(write(tmp_path, recipe_to_yaml(recipe)))
    assert again == recipe


def test_number_without_a_dot_is_a_number_not_text(tmp_path: Path) -> None:
    """PyYAML reads 1e-3 as the string "1e-3"."""
    recipe = load_recipe(write(tmp_path, MINIMAL + "training: {learning_rate: 1e-3}\n"))
    assert recipe.training.learning_rate == 0.001


def test_one_side_means_a_square(tmp_path: Path) -> None:
    assert load_recipe(write(tmp_path, MINIMAL)).input_size == (64, 64)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (MINIMAL + "sede: 1\n", "recipe PATH: unknown field 'sede'; did you mean seed?"),
        (
            MINIMAL + "training: {stepz: 1}\n",
            "recipe PATH: unknown field 'training.stepz'; did you mean steps?",
        ),
        ("input_size: 64\n", "recipe PATH: field 'task' is missing"),
        (
            # PyYAML reads `on` as true.
            MINIMAL + "backbone: {weights: on}\n",
            "recipe PATH: backbone.weights: input should be a valid string, received True",
        ),
        (
            MINIMAL + "training: {steps: true}\n",
            "recipe PATH: training.steps: input should be a valid integer, received True",
        ),
        (
            MINIMAL + "training: {steps: 2.5}\n",
            "recipe PATH: training.steps: input should be a valid integer, received 2.5",
        ),
        (
            MINIMAL + "training: {learning_rate: true}\n",
            "recipe PATH: training.learning_rate: must be a number, received True",
        ),
        (
            MINIMAL + "training: {learning_rate: .nan}\n",
            "recipe PATH: training.learning_rate: input should be a finite number, received nan",
        ),
        (
            MINIMAL + "training: {steps: 0, batch_size: 0}\n",
            "recipe PATH: training.steps: input should be greater than or equal to 1, received 0 "
            "(and 1 more)",
        ),
        (
            MINIMAL + "export: {precisions: [int8, int8]}\n",
            "recipe PATH: export: names a precision twice, "
            "received {'precisions': ['int8', 'int8']}",
        ),
        (
            MINIMAL + "prune: {target: mac=0.5}\n",
            "recipe PATH: prune.target: unknown target 'mac'; did you mean macs?, "
            "received 'mac=0.5'",
        ),
        (
            MINIMAL + "prune: {sparsity: 0.8, pattern: '2:4'}\n",
            "recipe PATH: prune: the pattern 2:4 has 50% zeros at most, received a final "
            "sparsity of 80%",
        ),
        ("- a\n- b\n", "recipe PATH must be a mapping of fields to values, received ['a', 'b']"),
    ],
)
def test_error_names_file_field_and_value(tmp_path: Path, text: str, expected: str) -> None:
    assert problem(tmp_path, text) == expected


def test_broken_yaml_is_one_line(tmp_path: Path) -> None:
    text = problem(tmp_path, "task: [depth\n")
    assert text.startswith("recipe PATH cannot be read (")
    assert "\n" not in text


def test_yaml_cannot_make_objects(tmp_path: Path) -> None:
    assert "could not determine a constructor" in problem(
        tmp_path, "task: !!python/object/apply:os.system ['true']\n"
    )


def test_missing_file_and_unknown_name(tmp_path: Path) -> None:
    with pytest.raises(EdgeheadsError, match=r"nowhere\.yaml does not exist; the ones that ship"):
        load_recipe(tmp_path / "nowhere.yaml")
    with pytest.raises(EdgeheadsError, match=r"did you mean depth-mobilenet_v2_0\.35-128"):
        load_recipe("depth-mobilenet_v2_0.35-12")


def test_changed_values_are_checked_too(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, MINIMAL))
    assert recipe.with_values(**{"training.steps": 3}).training.steps == 3
    with pytest.raises(EdgeheadsError, match=r"recipe mine: training\.steps: .* received 0"):
        recipe.with_values(**{"training.steps": 0})


def test_readme_has_every_field() -> None:
    """The table of fields is documentation that can go stale."""
    text = (resource_dir("recipes") / "README.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"^\| `([a-z_.]+)`", text, flags=re.MULTILINE))
    fields = set()
    for name, field in Recipe.model_fields.items():
        section = getattr(field.annotation, "model_fields", None)
        fields |= {f"{name}.{inner}" for inner in section} if section else {name}
    assert documented == fields
