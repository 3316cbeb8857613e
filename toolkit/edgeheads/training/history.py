"""What happened in a training: losses and validations, as CSV and as curves."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edgeheads.bundle import write_atomically
from edgeheads.errors import MissingDependencyError
from edgeheads.tasks.base import Metric

__all__ = ["History", "Validation", "write_csv", "write_curves"]

# A file of this many rows shows all there is to see.
_ROWS = 200


@dataclass(frozen=True)
class Validation:
    """The task's metrics on the validation split after `step` steps."""

    step: int
    metrics: Mapping[str, float]


@dataclass
class History:
    """What happened so far.

    Attributes:
        losses: of every step.
        validations: in order.
        best: index of the best of them; None before the first.
        stopped: training ended before its last step, since validation no longer improved.
    """

    losses: list[float] = field(default_factory=list)
    validations: list[Validation] = field(default_factory=list)
    best: int | None = None
    stopped: bool = False

    @property
    def step(self) -> int:
        """How many steps were taken."""
        return len(self.losses)

    def add_validation(self, metrics: Mapping[str, float], judge: Metric) -> bool:
        """Add the metrics of the present weights; return whether they are the best so far."""
        self.validations.append(Validation(self.step, dict(metrics)))
        value = metrics[judge.name]
        if self.best is not None:
            best = self.validations[self.best].metrics[judge.name]
            if not (value > best if judge.higher_is_better else value < best):
                return False
        self.best = len(self.validations) - 1
        return True

    def rows(self, steps: int) -> list[dict[str, float | int]]:
        """Return some 200 evenly spaced rows, and one for each validation.

        "loss" is the mean since the row before.
        """
        every = max(1, steps // _ROWS)
        judged = {validation.step: validation.metrics for validation in self.validations}
        ends = {*range(every, self.step + 1, every), *judged, self.step} - {0}
        rows: list[dict[str, float | int]] = []
        start = 0
        for end in sorted(ends):
            rows.append(
                {
                    "step": end,
                    "loss": float(np.mean(self.losses[start:end])),
                    **judged.get(end, {}),
                }
            )
            start = end
        return rows


def write_csv(history: History, steps: int, rate: Callable[[int], float], path: Path) -> None:
    """Write the rows; a metric's column is empty where nothing was validated.

    Args:
        history: what happened.
        steps: how many there will be.
        rate: step, from 0 -> its learning rate.
        path: of the file.
    """
    rows = [
        {"step": row["step"], "learning_rate": rate(int(row["step"]) - 1), **row}
        for row in history.rows(steps)
    ]
    columns = list(dict.fromkeys(column for row in rows for column in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue())


def write_curves(history: History, steps: int, judge: Metric, path: Path) -> None:
    """Draw the loss and, where there are validations, the judged metric, over the steps.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingDependencyError("matplotlib", "convert", "drawing learning curves") from None
    rows = history.rows(steps)
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.plot([row["step"] for row in rows], [row["loss"] for row in rows], label="training loss")
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    axes.grid(alpha=0.3)
    if history.validations:
        other = axes.twinx()
        at = [validation.step for validation in history.validations]
        values = [validation.metrics[judge.name] for validation in history.validations]
        title = f"{judge.title}, validation" + (f" [{judge.unit}]" if judge.unit else "")
        other.plot(at, values, "o-", color="tab:orange", label=title)
        other.set_ylabel(title)
        if history.best is not None:
            other.axvline(at[history.best], color="tab:orange", linestyle=":", label="best")
    figure.legend(loc="outside upper center", ncols=3)
    draft = path.with_name(f".{path.stem}-draft.png")
    try:
        figure.savefig(draft, dpi=120)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
