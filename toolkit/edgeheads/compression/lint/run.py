"""Linting a file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgeheads.compression.legacy import load_any
from edgeheads.compression.lint.layers import custom_layers
from edgeheads.compression.lint.rule import Finding
from edgeheads.compression.lint.rules import count_severities, find_rule, lint_model
from edgeheads.device import DeviceProfile
from edgeheads.errors import EdgeheadsError

__all__ = ["LintResult", "lint_file"]


@dataclass(frozen=True)
class LintResult:
    """What was found in a file.

    Attributes:
        findings: in the order of the layers.
    """

    findings: list[Finding]

    @property
    def counts(self) -> dict[str, int]:
        """How many findings there are of each severity, the worst first."""
        return count_severities(self.findings)


def lint_file(file: Path, device: DeviceProfile | None = None) -> LintResult:
    """Look at a .keras file, or at a .h5 file of Keras 2.

    A .keras file that does not load because of custom layers is reported with these alone:
    nothing else can be told of it.

    Raises:
        EdgeheadsError: no such file, or one that cannot be loaded for another reason.
    """
    try:
        model = load_any(file)
    except EdgeheadsError:
        rule = find_rule("custom-layer")
        found = [
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
        if not found:
            raise
        return LintResult(found)
    return LintResult(lint_model(model, device))
