"""Linting a file, and writing a better one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import keras

from edgeheads.compression.fold import laid_open
from edgeheads.compression.graph import OutputsOf
from edgeheads.compression.legacy import load_any
from edgeheads.compression.lint.effect import Effect, measure_effect
from edgeheads.compression.lint.finding import Finding
from edgeheads.compression.lint.fix import FixResult, fix_model, require_other_file, save_fixed
from edgeheads.compression.lint.layers import custom_layers
from edgeheads.compression.lint.rules import find_rule, lint_model
from edgeheads.device import DeviceProfile
from edgeheads.edge_model import file_outputs
from edgeheads.errors import EdgeheadsError
from edgeheads.progress import Progress
from edgeheads.recipe import Recipe
from edgeheads.tasks import get_task

__all__ = ["LintResult", "lint_file"]


@dataclass(frozen=True)
class LintResult:
    """What was found in a file.

    Attributes:
        findings: in the order of the layers.
        fix: what was rewritten, if it was asked for.
        effect: what that did to the int8 file, if it was asked for.
    """

    findings: list[Finding]
    fix: FixResult | None = None
    effect: Effect | None = None


def lint_file(
    file: Path,
    device: DeviceProfile | None = None,
    fix_to: Path | None = None,
    *,
    recipe: Recipe | None = None,
    with_effect: bool = False,
    progress: Progress,
) -> LintResult:
    """Look at a .keras file, or at a .h5 file.

    A .keras file that does not load because of custom layers is reported with these alone:
    nothing else can be told of it.

    Args:
        file: is not changed.
        device: see `lint_model`.
        fix_to: write what `fix_model` makes of it here.
        recipe: that the model was trained by: look at what its task puts in the file, and not at
            what is computed from the file's results. Without it all of the model is looked at.
        with_effect: measure what the rewrite does to the int8 file; needs the recipe.
        progress: is told of each stage.

    Raises:
        EdgeheadsError: no such file, or one that cannot be loaded for another reason; a file that
            cannot be fixed.
    """
    if fix_to is not None:
        require_other_file(file, fix_to)
    with progress.step("Loading the model"):
        try:
            model = load_any(file)
        except EdgeheadsError:
            found = _found_unloaded(file)
            if not found:
                raise
            if fix_to is not None:
                names = ", ".join(one.layer for one in found)
                raise EdgeheadsError(
                    f"--fix needs a model that loads, received {file} with the custom layer(s) "
                    f"{names}; replace them by stock layers"
                ) from None
            return LintResult(found)
    outputs_of = None if recipe is None else _outputs_of(file, model, recipe)
    with progress.step("Looking at the layers"):
        findings = lint_model(model, device, outputs_of)
    if fix_to is None:
        return LintResult(findings)
    with progress.step("Rewriting"):
        fixed = fix_model(model, device, outputs_of)
    effect = None
    if recipe is not None and with_effect:
        effect = measure_effect(file, fixed.model, recipe, device, progress=progress)
    save_fixed(fixed.model, file, fix_to)
    return LintResult(findings, fixed, effect)


def _outputs_of(file: Path, model: keras.Model, recipe: Recipe) -> OutputsOf:
    outputs_of = file_outputs(get_task(recipe.task, recipe.head.options))
    try:
        outputs_of(laid_open(model))
    except EdgeheadsError as error:
        raise EdgeheadsError(
            f"{file} is not of the recipe beside it, {file.with_name('recipe.yaml')} of "
            f"{recipe.task}: {error}; move the recipe away to lint all of the model"
        ) from None
    return outputs_of


def _found_unloaded(file: Path) -> list[Finding]:
    rule = find_rule("custom-layer")
    return [
        Finding(
            rule.id,
            rule.severity,
            name,
            kind,
            f"{detail}; the model does not load here, and the other rules were not looked at",
            rule.why,
            rule.instead,
        )
        for name, kind, detail in custom_layers(file)
    ]
