"""What `edgeheads bench` prints."""

from __future__ import annotations

from typing import Any

import click

from edgeheads.bench.fleet import FleetResult
from edgeheads.cli.console import print_json, print_table, short_path

__all__ = ["print_benchmarks"]

_STATISTICS = ("p50", "p90", "p99", "mean", "std", "min", "max")
_SHOWN_OPS = 8

_Benchmarks = dict[str, dict[str, Any]]


def print_benchmarks(fleet: FleetResult[_Benchmarks], as_json: bool) -> None:
    """Print what was measured on every device that did not fail.

    As JSON: {model: benchmark.json}, or {device: {model: ...}} of several devices.
    """
    several = len(fleet.done) + len(fleet.failed) > 1
    if as_json:
        if several or fleet.done:
            print_json(fleet.done if several else next(iter(fleet.done.values())))
        return
    rows = [
        (short_path(name), label, result)
        for label, results in fleet.done.items()
        for name, result in results.items()
    ]
    if not rows:
        return
    _print_latency(rows, several)
    _print_start(rows, several)
    _print_stages(rows, several)
    _print_sweep(rows, several)
    for name, label, result in rows:
        where = f"{name} on {label}"
        _print_extras(where, result)
        for warning in result["warnings"]:
            click.echo(f"Warning: {where}: {warning}")
    for label, results in fleet.done.items():
        first = next(iter(results.values()))["repeats"][0]
        click.echo(f"Protocol{f' on {label}' if several else ''}: {first['protocol']}")


_Rows = list[tuple[str, str, dict[str, Any]]]


def _print_latency(rows: _Rows, several: bool) -> None:
    first = rows[0][2]["repeats"][0]
    setup = f"{first['threads']} thread(s), {first['delegate']}"
    print_table(
        f"Latency in ms{'' if several else f', {_runtime(first)}, {setup}'}",
        [
            "",
            *(["device", "setup"] if several else []),
            *_STATISTICS,
            "to first",
            "runs",
            "spread",
            "delegated",
        ],
        [
            [
                name,
                *([label, _setup(result["repeats"][0])] if several else []),
                *(_milliseconds(result["latency_ms"][key]) for key in _STATISTICS),
                f"{result['ratio_to_first']:.2f}x",
                " ".join(str(one["runs"]) for one in result["repeats"]),
                f"{result['spread_percent']:.0f} %{' unstable' if result['unstable'] else ''}",
                f"{result['repeats'][0]['delegated_nodes']}/{result['repeats'][0]['nodes']} "
                f"in {result['repeats'][0]['delegate_partitions']}",
            ]
            for name, label, result in rows
        ],
    )


def _runtime(one: dict[str, Any]) -> str:
    return f"{one['runtime']['name']} {one['runtime']['version']}"


def _setup(one: dict[str, Any]) -> str:
    return f"{_runtime(one)}, {one['threads']} thr., {one['delegate']}"


def _print_start(rows: _Rows, several: bool) -> None:
    print_table(
        "Start and memory, first round",
        [
            "",
            *(["device"] if several else []),
            "process ms",
            "create ms",
            "first run ms",
            "warm-up ms",
            "warm-up runs",
            "peak MB",
            "model's MB",
            "°C",
        ],
        [
            [
                name,
                *([label] if several else []),
                _number(one["process_to_ready_ms"], 0),
                f"{one['cold_start_ms']:.1f}",
                f"{one['first_inference_ms']:.2f}",
                f"{one['warmup_ms']:.0f}",
                f"{one['warmup_runs']}",
                _megabytes(one["peak_memory_bytes"]),
                _megabytes(one["model_memory_bytes"]),
                _degrees(result["repeats"]),
            ]
            for name, label, result, one in (
                (name, label, result, result["repeats"][0]) for name, label, result in rows
            )
        ],
    )


def _print_stages(rows: _Rows, several: bool) -> None:
    table = [
        [
            name,
            *([label] if several else []),
            stage["stage"],
            "this machine" if "host" in (stage["where"], label) else label,
            _milliseconds(stage["latency_ms"]["p50"]),
            _milliseconds(stage["latency_ms"]["p90"]),
            str(stage["runs"]),
        ]
        for name, label, result in rows
        for stage in result["stages"]
    ]
    if table:
        print_table(
            "Stages in ms: resize is of a 640x480 picture",
            ["", *(["device"] if several else []), "stage", "measured on", "p50", "p90", "runs"],
            table,
        )


def _print_sweep(rows: _Rows, several: bool) -> None:
    table = [
        [
            name,
            *([label] if several else []),
            str(one["threads"]),
            _milliseconds(one["latency_ms"]["p50"]),
            _milliseconds(one["latency_ms"]["p90"]),
            f"{one['speedup']:.2f}x",
            f"{one['spread_percent']:.0f} %{' unstable' if one['unstable'] else ''}",
            _megabytes(one["peak_memory_bytes"]),
        ]
        for name, label, result in rows
        for one in result["threads_sweep"]
    ]
    if table:
        columns = ["threads", "p50", "p90", "speed-up", "spread", "peak MB"]
        print_table("Threads", ["", *(["device"] if several else []), *columns], table)


def _print_extras(where: str, result: dict[str, Any]) -> None:
    check = result.get("cross_check")
    if check and check["tool"] is None:
        click.echo(f"Cross-check of {where}: not made; {check['reason']}")
    elif check:
        click.echo(
            f"Cross-check of {where}: p50 {check['ours_p50_ms']:.3f} ms here, "
            f"{check['p50_ms']:.2f} ms by {check['tool']} {check['version']}; "
            f"ratio {_number(check['ratio'], 2)}"
        )
    profile = result.get("op_profile")
    if profile:
        rows = profile["by_op"][:_SHOWN_OPS]
        print_table(
            f"Operations of {where}: {profile['total_ms']:.3f} ms in all",
            ["", "count", "ms", "share"],
            [
                [
                    row["op"],
                    str(row["count"]),
                    f"{row['ms']:.3f}",
                    f"{max(row['share_percent'], 0):.0f} %",
                ]
                for row in rows
            ],
        )
        click.echo(f"Method: {profile['method']}")
    sustained = result.get("sustained")
    if sustained:
        held = (
            f"; held back by {', '.join(sustained['throttled'])}" if sustained["throttled"] else ""
        )
        click.echo(
            f"Sustained, {where}: {sustained['runs']} runs in {sustained['minutes']:g} min, p50 "
            f"{sustained['latency_ms']['p50']:.3f} ms, at the end {sustained['slowdown']:.2f} "
            f"times that of the beginning{held}; {sustained['picture']}"
        )


def _milliseconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _number(value: float | None, digits: int) -> str:
    return "unknown" if value is None else f"{value:.{digits}f}"


def _megabytes(value: int | None) -> str:
    return "unknown" if value is None else f"{value / 1e6:.1f}"


def _degrees(repeats: list[dict[str, Any]]) -> str:
    """Return the lowest and the highest temperature that was read."""
    readings = [
        reading["temperature_celsius"]
        for one in repeats
        for reading in (
            one["conditions_before"],
            *one["conditions_during"],
            one["conditions_after"],
        )
        if reading["temperature_celsius"] is not None
    ]
    return f"{min(readings):.0f} to {max(readings):.0f}" if readings else "unknown"
