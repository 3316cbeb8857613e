"""The rewrites that take findings away and leave what a model computes as it is."""

from __future__ import annotations

import math
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from edgeheads.compression.equalization import Equalization, equalize
from edgeheads.compression.fold import fold_batch_norms, foldable_norms, laid_open
from edgeheads.compression.graph import OutputsOf, copy_layer, rewrite
from edgeheads.compression.lint.activations import activation_of
from edgeheads.compression.lint.finding import Finding, count_severities
from edgeheads.compression.lint.hard_swish import expand_hard_swish
from edgeheads.compression.lint.rule import Network
from edgeheads.compression.lint.rules import lint_model
from edgeheads.compression.quantize.float_twin import in_float32
from edgeheads.device import DeviceProfile
from edgeheads.errors import CheckFailedError, EdgeheadsError

__all__ = ["FixResult", "fix_model", "require_other_file", "save_fixed"]

_ALLOWED_DIFFERENCE = 1e-3
# Rounding moves each weight by half of its last bit at most; and the sums behind it likewise, of
# which there are more.
_LAST_BIT = 2.0**-24
_OF_ROUNDING = 10.0
_SPATIAL_IF_OPEN = 64
_BOUNDED = ("softmax", "sigmoid", "tanh", "hard_sigmoid")


@dataclass(frozen=True)
class FixResult:
    """What `fix_model` returns.

    Attributes:
        model: computes what the given one does, to within rounding.
        folded_norms: batch normalizations that became part of the weights.
        expanded: hard-swishes that were rewritten.
        equalization: None where no weights were found to need it, or none allow it.
        difference: the largest difference of any output, before its softmax or sigmoid, as a
            share of that output's largest value, on random inputs in [-1, 1] and in [0, 255].
        findings: what is left.
    """

    model: keras.Model
    folded_norms: int
    expanded: int
    equalization: Equalization | None
    difference: float
    findings: list[Finding]

    def as_json(self) -> dict[str, Any]:
        """Return it without the model."""
        equalized = self.equalization
        return {
            "folded_norms": self.folded_norms,
            "expanded_hard_swishes": self.expanded,
            "equalized": equalized
            and {
                "chains": [list(chain) for chain in equalized.chains],
                "spread_before": equalized.spread_before,
                "spread_after": equalized.spread_after,
            },
            "difference": self.difference,
            "counts_after": count_severities(self.findings),
        }


def fix_model(
    model: keras.Model,
    device: DeviceProfile | None = None,
    outputs_of: OutputsOf | None = None,
) -> FixResult:
    """Return a copy of a model in which what can be rewritten safely is.

    Batch normalization is folded; hard-swish is expanded, see `expand_hard_swish`; where
    weight-spread is found, neighbouring layers are equalized, see `equalize`.

    Args:
        model: a functional model. It is not changed.
        device: see `lint_model`.
        outputs_of: see `lint_model`. The copy has all outputs of the model.

    Raises:
        EdgeheadsError: a custom layer; see `edgeheads.compression.graph.flatten`.
        CheckFailedError: the copy would compute something else.
    """
    before = lint_model(model, device, outputs_of)
    custom = [one.layer for one in before if one.rule == "custom-layer"]
    if custom:
        raise EdgeheadsError(
            f"--fix rewrites stock Keras layers, received the custom layer(s) {', '.join(custom)}; "
            "replace them by stock layers first"
        )
    flat = laid_open(model)
    norms = len({id(norm) for norm in foldable_norms(flat).values()})
    fixed = fold_batch_norms(flat)
    if any(one.rule == "hard-swish" for one in before):
        fixed = expand_hard_swish(fixed)
    equalization = None
    if any(one.rule == "weight-spread" for one in before):
        equalized = equalize(fixed)
        if equalized.chains:
            equalization, fixed = equalized, equalized.model
    # Not what is computed from the file's outputs: an arg max jumps where two values are close.
    source, rewritten = (in_float32(Network(one, None, outputs_of).model) for one in (model, fixed))
    difference = _difference(source, rewritten)
    allowed = _ALLOWED_DIFFERENCE
    if not difference <= allowed:
        # Inputs far from those of training drive some networks to where rounding alone does that.
        allowed = max(allowed, _OF_ROUNDING * _difference(source, _rounded(source)))
    if not difference <= allowed:
        raise CheckFailedError(
            f"the rewritten model's outputs differ by {difference:.2g} of their range from those "
            f"of {model.name!r}; at most {allowed:.2g} is rounding. Nothing was written"
        )
    after = lint_model(fixed, device, outputs_of)
    expanded = _count(before, "hard-swish") - _count(after, "hard-swish")
    return FixResult(fixed, norms, expanded, equalization, difference, after)


def save_fixed(model: keras.Model, source: Path, out: Path) -> None:
    """Write a .keras file whole or not at all.

    Raises:
        EdgeheadsError: see `require_other_file`; the file cannot be written there.
    """
    require_other_file(source, out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as folder:
            part = Path(folder) / "model.keras"
            model.save(part)
            part.replace(out)
    except OSError as error:
        raise EdgeheadsError(f"{out} cannot be written: {error.strerror or error}") from None


def require_other_file(source: Path, out: Path) -> None:
    """Refuse to write over the model that is read.

    Raises:
        EdgeheadsError: `out` is the source, or is not named .keras.
    """
    if out.suffix != ".keras":
        raise EdgeheadsError(f"--fix writes a .keras file, received {out}")
    if out.resolve() == source.resolve():
        raise EdgeheadsError(f"--fix does not change MODEL, received {out}; name another file")


def _difference(model: keras.Model, fixed: keras.Model) -> float:
    """Return the largest difference of two flat models' outputs, as a share of their largest.

    Not a number where only one of them computes such.
    """
    rng = np.random.default_rng(0)
    worst = 0.0
    model, fixed = _without_bounds(model), _without_bounds(fixed)
    for low, high in ((-1.0, 1.0), (0.0, 255.0)):
        inputs = [_random(rng, tensor, low, high) for tensor in model.inputs]
        given = keras.tree.pack_sequence_as(model.input, inputs)
        old, new = (keras.tree.flatten(one(given, training=False)) for one in (model, fixed))
        for expected, found in zip(old, new, strict=True):
            a = np.asarray(keras.ops.convert_to_numpy(expected), np.float64)
            b = np.asarray(keras.ops.convert_to_numpy(found), np.float64)
            told = np.isfinite(a)
            if not np.array_equal(told, np.isfinite(b)):
                return math.nan
            scale = max(float(np.abs(a[told]).max(initial=0.0)), 1e-6)
            worst = max(worst, float(np.abs(a[told] - b[told]).max(initial=0.0)) / scale)
    return worst


def _rounded(model: keras.Model) -> keras.Model:
    """Return a copy of a flat model whose weights differ in their last bit."""
    rng = np.random.default_rng(0)
    twin = keras.models.clone_model(model)
    for layer in (one for one in twin.layers if one.weights):
        weights = model.get_layer(layer.name).get_weights()
        layer.set_weights(
            [one * (1 + rng.uniform(-_LAST_BIT, _LAST_BIT, one.shape)) for one in weights]
        )
    return twin


def _without_bounds(model: keras.Model) -> keras.Model:
    """Return a copy that returns logits: behind a softmax, or a sigmoid, all may look the same."""
    network = Network(model)
    ends = {call.layer.name for call in network.calls if network.is_output(call)}
    twins: dict[str, keras.layers.Layer] = {}

    def visit(layer: keras.layers.Layer, *args: Any, **kwargs: Any) -> Any:
        bounded = layer.name in ends and activation_of(layer) in _BOUNDED
        if bounded and isinstance(layer, keras.layers.Softmax):
            return args[0]
        if layer.name not in twins:
            twins[layer.name] = copy_layer(layer, **({"activation": "linear"} if bounded else {}))
        return twins[layer.name](*args, **kwargs)

    return rewrite(model, visit)


def _random(rng: np.random.Generator, tensor: Any, low: float, high: float) -> Any:
    shape = [side or _SPATIAL_IF_OPEN for side in tensor.shape[1:]]
    if tensor.dtype.startswith("int"):  # numbers of words, of which every model knows two
        return rng.integers(0, 2, [2, *shape]).astype(tensor.dtype)
    return rng.uniform(low, high, [2, *shape]).astype(tensor.dtype)


def _count(findings: list[Finding], rule: str) -> int:
    return sum(one.rule == rule for one in findings)
