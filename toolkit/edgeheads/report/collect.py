"""Everything that was measured of some Bundles, as plain values: what all formats show."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from edgeheads.bundle import Bundle
from edgeheads.errors import EdgeheadsError
from edgeheads.evaluate import bundle_task
from edgeheads.measurements import read_measurements
from edgeheads.report.table import find_bundles

__all__ = ["REPORT_SCHEMA_VERSION", "collect_report", "pareto_front"]

REPORT_SCHEMA_VERSION = 1

# Kind -> the keys that are shown, without which it is no measurement.
_KEYS = {
    "evaluation": ("metrics",),
    "benchmark": ("latency_ms", "repeats"),
    "sustained": ("latency_ms", "curve"),
    "op_profile": ("by_op",),
}


def collect_report(folders: Iterable[Path]) -> dict[str, Any]:
    """Return what README.md describes as the report's JSON.

    A Bundle that was changed, or a measurement of another file, is left out and named in
    "left_out", a sentence each.

    Raises:
        EdgeheadsError: a folder has no Bundle.
    """
    left_out: list[str] = []
    bundles = []
    for path in find_bundles(folders):
        try:
            bundles.append(_bundle_content(Bundle(path), left_out))
        except EdgeheadsError as error:
            left_out.append(str(error))
    return {
        "schema_version": REPORT_SCHEMA_VERSION,
        "bundles": bundles,
        "comparisons": _comparisons(bundles),
        "left_out": left_out,
    }


def pareto_front(points: list[dict[str, Any]], higher_is_better: bool) -> list[bool]:
    """Tell for each point whether no other is at least as good in all of three, better in one.

    Args:
        points: with "p50_ms", "size_bytes" (less is better) and "value".
        higher_is_better: the direction of "value".
    """
    sign = -1 if higher_is_better else 1
    costs = [(one["p50_ms"], one["size_bytes"], sign * one["value"]) for one in points]
    return [
        not any(
            other != own and all(a <= b for a, b in zip(other, own, strict=True)) for other in costs
        )
        for own in costs
    ]


def _bundle_content(bundle: Bundle, left_out: list[str]) -> dict[str, Any]:
    found = {
        kind: read_measurements(bundle, kind, keys=keys, left_out=left_out)
        for kind, keys in _KEYS.items()
    }
    reference = bundle.read_measurement("float_evaluation")
    if reference is None and (bundle.folder / "float_evaluation.json").is_file():
        left_out.append(f"{bundle.folder / 'float_evaluation.json'} is of another file")
    metrics = [
        {
            "name": metric.name,
            "title": metric.title,
            "unit": metric.unit,
            "higher_is_better": metric.higher_is_better,
            "is_judged": metric.allowed_drop is not None,
        }
        for metric in bundle_task(bundle).metrics
    ]
    return {
        "folder": str(bundle.folder),
        "task": bundle.task,
        "precision": bundle.precision,
        "model_sha256": bundle.sha256,
        "size_bytes": bundle.model_bytes,
        "metrics": metrics,
        "stages": _stages(bundle, reference, found["evaluation"]),
        "benchmarks": found["benchmark"],
        "sustained": found["sustained"],
        "op_profiles": found["op_profile"],
        "checks": _checks(bundle, left_out),
    }


def _checks(bundle: Bundle, left_out: list[str]) -> list[dict[str, Any]]:
    """Return what `edgeheads verify` found, on a device and for targets that are not at hand."""
    rows = []
    targets = sorted(bundle.folder.glob("target-*.json"))
    for path in (*targets, bundle.folder / "verification.json"):
        if not path.is_file():
            continue
        content = bundle.read_measurement(path.stem)
        if content is None or not isinstance(content.get("checks"), list):
            left_out.append(f"{path} is of another file; run: edgeheads verify {bundle.folder}")
            continue
        where = content.get("target") or content.get("device", "host")
        estimated = "target" in content
        rows += [
            {
                "where": f"{where}, not at hand" if estimated else where,
                "name": one["name"],
                "passed": one["passed"],
                "detail": one["detail"],
            }
            for one in content["checks"]
        ]
    return rows


def _stages(
    bundle: Bundle, reference: dict[str, Any] | None, evaluations: dict[str, dict[str, Any]]
) -> list[dict[str, Any]]:
    """Return the scores from the float model to each device, each with its drop."""
    rows = []
    for name, scores in [("float Keras", reference), *evaluations.items()]:
        if scores is None:
            continue
        data = scores.get("data_sha256")
        same = data is not None and (reference or {}).get("data_sha256") == data
        values = scores.get("metrics", {})
        drops = {
            metric.name: metric.drop(reference["metrics"][metric.name], values[metric.name])
            for metric in bundle_task(bundle).metrics
            if same
            and reference is not None
            and values.get(metric.name) is not None
            and reference["metrics"].get(metric.name) is not None
        }
        rows.append(
            {
                "stage": name if scores is reference else f".tflite on {name}",
                "device": None if scores is reference else name,
                "images": scores.get("counts", {}).get("images"),
                "metrics": values,
                "drops": drops,
                "protocol": scores.get("protocol", ""),
                "data_sha256": scores.get("data_sha256"),
            }
        )
    return rows


def _comparisons(bundles: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Group what may be compared: one task, one device, the same images."""
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = defaultdict(list)
    judged: dict[str, dict[str, Any]] = {}
    for bundle in bundles:
        metric = next((one for one in bundle["metrics"] if one["is_judged"]), None)
        if metric is None:
            continue
        judged[bundle["task"]] = metric
        for stage in bundle["stages"]:
            benchmark = bundle["benchmarks"].get(stage["device"])
            value = stage["metrics"].get(metric["name"])
            p50_ms = ((benchmark or {}).get("latency_ms") or {}).get("p50")
            if p50_ms is None or value is None:
                continue
            # Scores of unknown images are comparable with nothing.
            data = stage["data_sha256"] or f"unknown, {bundle['folder']}"
            key = (bundle["task"], stage["device"], data)
            groups[key].append(
                {
                    "folder": bundle["folder"],
                    "precision": bundle["precision"],
                    "p50_ms": p50_ms,
                    "size_bytes": bundle["size_bytes"],
                    "value": value,
                }
            )
    found = []
    for (task, device, data), points in groups.items():
        front = pareto_front(points, judged[task]["higher_is_better"])
        for point, is_best in zip(points, front, strict=True):
            point["on_pareto_front"] = is_best
        found.append(
            {
                "task": task,
                "device": device,
                "data_sha256": None if data.startswith("unknown") else data,
                "metric": judged[task],
                "points": points,
            }
        )
    return found
