"""The report as Markdown: the page's tables, without its pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgeheads.tasks.base import rounded

__all__ = ["content_to_markdown"]

_PERCENTILES = ("p50", "p90", "p95", "p99")


def content_to_markdown(content: dict[str, Any]) -> str:
    """Return what `collect_report` returned as Markdown."""
    lines = ["# edgeheads report", ""]
    if content["left_out"]:
        lines += ["## Left out", "", *(f"- {text}" for text in content["left_out"]), ""]
    for one in content["comparisons"]:
        lines += [f"## {one['task']} on {one['device']}", ""]
        lines += _table(
            ["file", "p50 ms", "size kB", one["metric"]["title"], "Pareto front"],
            [
                [
                    f"{point['folder']} ({point['precision']})",
                    _number(point["p50_ms"]),
                    f"{point['size_bytes'] / 1000:.0f}",
                    _number(point["value"]),
                    "yes" if point["on_pareto_front"] else "no",
                ]
                for point in one["points"]
            ],
        )
    for bundle in content["bundles"]:
        lines += _bundle_lines(bundle)
    return "\n".join(lines).rstrip()


def _bundle_lines(bundle: dict[str, Any]) -> list[str]:
    lines = [
        f"## {bundle['task']}, {bundle['precision']}, {bundle['size_bytes'] / 1000:.0f} kB",
        "",
        f"`{bundle['folder']}`, SHA-256 `{bundle['model_sha256']}`",
        "",
    ]
    names = [metric["name"] for metric in bundle["metrics"]]
    stages = bundle["stages"]
    lines += _table(
        ["stage", "images", *(metric["title"] for metric in bundle["metrics"])],
        [
            [
                stage["stage"],
                str(stage["images"] if stage["images"] is not None else "–"),
                *(_with_drop(stage, name) for name in names),
            ]
            for stage in stages
        ],
    )
    lines += [f"{one['stage']}: {one['protocol']}\n" for one in stages if one["protocol"]]
    for kind in ("benchmarks", "sustained"):
        lines += _table(
            ["latency, ms" if kind == "benchmarks" else "sustained, ms", *_PERCENTILES],
            [
                [label, *(_number(one["latency_ms"].get(name)) for name in _PERCENTILES)]
                for label, one in bundle[kind].items()
            ],
        )
    for label, one in bundle["op_profiles"].items():
        lines += _table(
            [f"operations on {label}", "count", "ms"],
            [[row["op"], str(row["count"]), _number(row["ms"])] for row in one["by_op"]],
        )
    lines += _table(
        ["check", "on", "", "found"],
        [
            [one["name"], one["where"], "ok" if one["passed"] else "FAILED", one["detail"]]
            for one in bundle["checks"]
        ],
    )
    return lines


def _with_drop(stage: dict[str, Any], name: str) -> str:
    text = _number(stage["metrics"].get(name))
    if stage["device"] and name in stage["drops"]:
        text += f" ({rounded(stage['drops'][name], 4):+.4f})"
    return text


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    if not rows:
        return []
    cells = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return [
        f"| {' | '.join(columns)} |",
        f"|{'---|' * len(columns)}",
        *(f"| {' | '.join(row)} |" for row in cells),
        "",
    ]


def _number(value: Any) -> str:
    return "–" if not isinstance(value, int | float) else f"{value:.4g}"
