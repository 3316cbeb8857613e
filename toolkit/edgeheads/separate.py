"""What several tasks on one trunk save, and cost, against one model for each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from edgeheads.bench.latency import compare
from edgeheads.convert import ConvertResult, convert
from edgeheads.device import DeviceProfile
from edgeheads.errors import EdgeheadsError
from edgeheads.progress import Progress
from edgeheads.recipe import Recipe
from edgeheads.runtime import BenchSettings, DeviceSession
from edgeheads.tasks import get_task
from edgeheads.tasks.base import Metric

__all__ = ["Separate", "compare_with_separate", "separate_recipes"]


@dataclass(frozen=True)
class Separate:
    """One file for all tasks beside one file for each, of the same precision.

    Attributes:
        precision: of the files.
        metrics: (metric, the shared file's value, the value of the task's own file).
        size_bytes: of the shared file; of the others together.
        p50_ms: likewise, one after the other.
        time_ratio: the shared file's p50 divided by the sum of the others', the median over
            rounds in which all were timed in turn.
        parameters: of the shared Keras model; of the others together.
        folders: of each task's own conversion.
    """

    precision: str
    metrics: tuple[tuple[Metric, float, float], ...]
    size_bytes: tuple[int, int]
    p50_ms: tuple[float, float]
    time_ratio: float
    parameters: tuple[int, int]
    folders: dict[str, str]


def separate_recipes(recipe: Recipe) -> dict[str, Recipe]:
    """Return, for each task of a multi-task recipe, the recipe of that task alone.

    Backbone, data, training and the trunk's options stay as they are.

    Raises:
        EdgeheadsError: the recipe is for a single task.
    """
    parts = get_task(recipe.task, recipe.head.options).parts()
    if not parts:
        raise EdgeheadsError(
            f"recipe {recipe.name} is for the single task {recipe.task!r}, there is nothing to "
            "separate; take a multi-task recipe"
        )
    trunk = {key: value for key, value in recipe.head.options.items() if key != "task_configs"}
    return {
        name: recipe.with_values(
            name=f"{recipe.name}-{name}",
            task=name,
            **{"head.options": {**trunk, **room.options}},
        )
        for name, room in parts.items()
    }


def compare_with_separate(
    result: ConvertResult,
    *,
    profile: DeviceProfile | None = None,
    bench_settings: BenchSettings | None = None,
    progress: Progress | None = None,
) -> Separate:
    """Convert each task of a multi-task result by itself, and compare the files.

    Args:
        result: of a multi-task conversion; the others are put in its folder, in separate/<task>.
        profile: where to measure; default: this machine.
        bench_settings: of the latency measurement.
        progress: where to report.

    Raises:
        EdgeheadsError: see `separate_recipes` and `convert`.
    """
    precision = result.recipe.export.precisions[-1]
    own: dict[str, ConvertResult] = {}
    for name, recipe in separate_recipes(result.recipe).items():
        folder = result.folder / "separate" / name
        own[name] = convert(
            recipe, folder, profile=profile, bench_settings=bench_settings, progress=progress
        )
    shared = result.bundles[precision]
    bundles = {name: one.bundles[precision] for name, one in own.items()}
    files: dict[str, Path] = {"": shared.model_path}
    files |= {name: bundle.model_path for name, bundle in bundles.items()}
    with DeviceSession(profile) as session:
        timed = compare(session, files, bench_settings)
    rounds = zip(*(timed[name]["ratios_to_first"] for name in bundles), strict=True)
    return Separate(
        precision=precision,
        metrics=_metrics(result, own, precision),
        size_bytes=(shared.model_bytes, sum(one.model_bytes for one in bundles.values())),
        p50_ms=(
            timed[""]["latency_ms"]["p50"],
            sum(timed[name]["latency_ms"]["p50"] for name in bundles),
        ),
        time_ratio=median(1 / sum(ratios) for ratios in rounds),
        parameters=(result.parameters, sum(one.parameters for one in own.values())),
        folders={name: str(one.folder) for name, one in own.items()},
    )


def _metrics(
    result: ConvertResult, own: dict[str, ConvertResult], precision: str
) -> tuple[tuple[Metric, float, float], ...]:
    task = get_task(result.recipe.task, result.recipe.head.options)
    together: dict[str, Any] = result.evaluations[precision]["metrics"]
    found = []
    for metric in task.metrics:
        name, _, single = metric.name.partition("/")
        value = own[name].evaluations[precision]["metrics"][single]
        found.append((metric, together[metric.name], value))
    return tuple(found)
