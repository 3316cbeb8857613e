"""One row for each judged metric of each Bundle: baseline, float32, this file, drop, cost."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeheads.bundle import Bundle
from edgeheads.errors import CheckFailedError, EdgeheadsError
from edgeheads.evaluate import bundle_task
from edgeheads.tasks.base import Metric

__all__ = ["Row", "collect_rows", "find_bundles", "to_markdown"]

_MANIFEST = "manifest.json"
_NONE = "–"


@dataclass(frozen=True)
class Row:
    """A judged metric of a Bundle, beside the float32 Bundle of the same run.

    Attributes:
        task: its value.
        data: where the labelled images came from: "synthetic", or the folder's name.
        images: that it was measured on.
        precision: of the file.
        metric: what was measured.
        baseline: of the trivial predictor; None where there is none.
        reference: of the float32 file; None where that was not made.
        value: of this file.
        size_bytes: of this file.
        p50_ms: of this file; None where it was not timed.
        time_ratio: p50 divided by the float32 file's, both timed in turn; None likewise.
        model_sha256: of this file.
        folder: of the Bundle.
    """

    task: str
    data: str
    images: int
    precision: str
    metric: Metric
    baseline: float | None
    reference: float | None
    value: float
    size_bytes: int
    p50_ms: float | None
    time_ratio: float | None
    model_sha256: str
    folder: str

    @property
    def drop(self) -> float | None:
        """By how much the file is worse than the float32 file, as the metric counts it."""
        return None if self.reference is None else self.metric.drop(self.reference, self.value)


def find_bundles(folders: Iterable[Path]) -> list[Path]:
    """Return the Bundles in some folders, at any depth, in the order of their paths.

    Raises:
        EdgeheadsError: a folder has none.
    """
    found: list[Path] = []
    for folder in folders:
        inside = sorted(path.parent for path in folder.rglob(_MANIFEST))
        if not inside:
            raise EdgeheadsError(
                f"{folder} holds no Bundle; give the folder that edgeheads convert wrote to"
            )
        found += [path for path in inside if path not in found]
    return found


def collect_rows(paths: Iterable[Path]) -> list[Row]:
    """Return the rows of Bundles that were evaluated.

    Raises:
        EdgeheadsError: a Bundle was not evaluated.
        CheckFailedError: a file was changed, or a measurement is of another file.
    """
    bundles = [Bundle(path) for path in paths]
    measured = {bundle.folder: _measurement(bundle, "evaluation") for bundle in bundles}
    timed = {bundle.folder: _measurement(bundle, "benchmark") for bundle in bundles}
    full = {bundle.folder.parent: bundle for bundle in bundles if bundle.precision == "float32"}
    rows = []
    for bundle in bundles:
        evaluation, benchmark = measured[bundle.folder], timed[bundle.folder]
        if evaluation is None:
            raise EdgeheadsError(
                f"{bundle.folder} was not evaluated; run: edgeheads evaluate {bundle.folder}"
            )
        reference = full.get(bundle.folder.parent)
        compared = None if reference is None else measured[reference.folder]
        beside = None if reference is None else timed[reference.folder]
        for metric in bundle_task(bundle).metrics:
            if metric.allowed_drop is None:
                continue
            rows.append(
                Row(
                    task=bundle.task,
                    data=Path(evaluation["data"]["source"]).name,
                    images=_images(evaluation, metric),
                    precision=bundle.precision,
                    metric=metric,
                    baseline=_metric(evaluation["baseline"], metric),
                    reference=_metric(compared, metric),
                    value=evaluation["metrics"][metric.name],
                    size_bytes=bundle.model_bytes,
                    p50_ms=benchmark["latency_ms"]["p50"] if benchmark else None,
                    time_ratio=_time_ratio(benchmark, beside),
                    model_sha256=bundle.sha256,
                    folder=str(bundle.folder),
                )
            )
    return rows


def to_markdown(rows: list[Row]) -> str:
    """Return the rows as a Markdown table."""
    lines = [
        "| task | data | n | file | metric | baseline | float32 | this file | drop | allowed "
        "| size kB | p50 ms | of float32 |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        arrow = "↑" if row.metric.higher_is_better else "↓"
        cells = [
            row.task,
            row.data,
            str(row.images),
            row.precision,
            f"{row.metric.title} {arrow}",
            _number(row.baseline),
            _number(row.reference),
            _number(row.value),
            _change(row.metric, row.drop),
            _change(row.metric, row.metric.allowed_drop),
            f"{row.size_bytes / 1000:.0f}",
            _number(row.p50_ms, 2),
            _NONE if row.time_ratio is None else f"{row.time_ratio:.2f}x",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _measurement(bundle: Bundle, name: str) -> dict[str, Any] | None:
    path = bundle.folder / f"{name}.json"
    if not path.is_file():
        return None
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if content.get("model_sha256") != bundle.sha256:
        raise CheckFailedError(
            f"{path} measured another file than {bundle.model_path}; measure again: "
            f"edgeheads {'bench' if name == 'benchmark' else 'evaluate'} {bundle.folder}"
        )
    return content


def _metric(scores: dict[str, Any] | None, metric: Metric) -> float | None:
    return None if scores is None else scores["metrics"][metric.name]


def _images(evaluation: dict[str, Any], metric: Metric) -> int:
    counts = evaluation["counts"]
    part = metric.name.rpartition("/")[0]
    return counts.get(f"{part}/images" if part else "images", 0)


def _time_ratio(benchmark: dict[str, Any] | None, beside: dict[str, Any] | None) -> float | None:
    if benchmark is None or beside is None:
        return None
    ratio: float = benchmark["ratio_to_first"] / beside["ratio_to_first"]
    return ratio


def _number(value: float | None, digits: int = 4) -> str:
    return _NONE if value is None else f"{value:.{digits}f}"


def _change(metric: Metric, drop: float | None) -> str:
    return _NONE if drop is None else metric.format(drop).removeprefix("+")
