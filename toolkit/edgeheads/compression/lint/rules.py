"""The rules, in the order they are looked at, and the function that looks."""

from __future__ import annotations

import keras

from edgeheads.compression.graph import OutputsOf
from edgeheads.compression.lint import (
    activations,
    attention,
    delegate,
    layers,
    memory,
    normalization,
    operations,
    ranges,
    shapes,
)
from edgeheads.compression.lint.finding import SEVERITIES, Finding
from edgeheads.compression.lint.rule import Network, Rule, kind_of
from edgeheads.device import DeviceProfile

__all__ = ["RULES", "find_rule", "lint_model"]

RULES: tuple[Rule, ...] = (
    *layers.RULES,
    *shapes.RULES,
    *memory.RULES,
    *operations.RULES,
    *activations.RULES,
    *delegate.RULES,
    *normalization.RULES,
    *attention.RULES,
    *ranges.RULES,
)


def lint_model(
    model: keras.Model,
    device: DeviceProfile | None = None,
    outputs_of: OutputsOf | None = None,
) -> list[Finding]:
    """Return what is hostile to int8 or to a device in a model, in the order of its layers.

    Args:
        model: a functional model; models inside it are laid open. It is not changed.
        device: what it is for. Rules of int8 are left out for one that does not run int8, and
            its own rules come in.
        outputs_of: what of the model becomes the file, such as a task's edge outputs; the rest
            is not looked at. None: all of it.

    Raises:
        EdgeheadsError: see `edgeheads.compression.graph.flatten`.
    """
    network = Network(model, device, outputs_of)
    place = {call.layer.name: (i, kind_of(call.layer)) for i, call in enumerate(network.calls)}
    runs_int8 = device is None or "int8" in device.quantization.precisions
    is_custom = any(True for _ in find_rule("custom-layer").look(network))
    found: dict[tuple[str, str], Finding] = {}
    for rule in RULES:
        if rule.is_int8 and not runs_int8:
            continue
        if is_custom and rule.id == "weight-spread":
            continue  # Folding copies every layer, and a custom one may not allow it.
        for layer, detail in rule.look(network):
            # A layer that several levels share is found once.
            found.setdefault(
                (rule.id, layer),
                Finding(
                    rule.id,
                    _severity(rule, device),
                    layer,
                    place[layer][1],
                    detail,
                    rule.why,
                    rule.instead,
                    rule.is_fixable,
                ),
            )
    return sorted(
        found.values(), key=lambda one: (place[one.layer][0], SEVERITIES.index(one.severity))
    )


def find_rule(name: str) -> Rule:
    """Return the rule of an id."""
    return next(rule for rule in RULES if rule.id == name)


def _severity(rule: Rule, device: DeviceProfile | None) -> str:
    per_tensor = device is not None and not device.quantization.per_channel
    return "warning" if rule.id == "weight-spread" and per_tensor else rule.severity
