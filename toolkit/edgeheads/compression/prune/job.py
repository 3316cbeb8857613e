"""Pruning and recovering in rounds, with a look at what each cost and bought."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import keras

from edgeheads.compression.prune.channels import Channels
from edgeheads.compression.prune.importance import Gradients
from edgeheads.compression.prune.meter import Exporter, FileMeter
from edgeheads.compression.prune.report import PruneReport, Stage, measure_files
from edgeheads.compression.prune.select import Limits
from edgeheads.compression.prune.structured import (
    Criterion,
    Meter,
    Pruned,
    flat_model,
    prune_in_rounds,
)
from edgeheads.compression.prune.surgery import remove_channels
from edgeheads.compression.prune.target import parse_target
from edgeheads.errors import EdgeheadsError
from edgeheads.progress import Progress
from edgeheads.recipe import PruneSection
from edgeheads.runtime import BenchSettings, DeviceSession

__all__ = ["PruneJob", "run"]


@dataclass(frozen=True)
class PruneJob:
    """What a model is, for those who prune it.

    Attributes:
        section: what to remove.
        exporter: makes files of it.
        precisions: of the files that are timed, besides the one that the target is of.
        protect: layers whose outputs keep their channels.
        gradients: of its loss, for importance "taylor".
        recover: trains a pruned model in place; is told whether it is the last round. None:
            there is nothing to train on.
        metrics: scores a model; None: there is nothing to score it on.
    """

    section: PruneSection
    exporter: Exporter = field(default_factory=Exporter)
    precisions: Sequence[str] = ("float32", "int8")
    protect: tuple[str, ...] = ()
    gradients: Gradients | None = None
    recover: Callable[[keras.Model, bool], None] | None = None
    metrics: Callable[[keras.Model], Mapping[str, float]] | None = None


def run(
    model: keras.Model,
    job: PruneJob,
    session: DeviceSession,
    progress: Progress,
    settings: BenchSettings | None = None,
) -> tuple[keras.Model, PruneReport]:
    """Prune a model in rounds, recover after each, and measure.

    Args:
        model: functional; it is not changed.
        job: how.
        session: the device that is timed on.
        progress: where to report.
        settings: of the last measurement.

    Returns:
        The pruned model, and the report.

    Raises:
        EdgeheadsError: see `prune_channels`; zeros without data to train on.
    """
    section = job.section
    if section.target is None and not section.sparsity:
        raise EdgeheadsError(
            "say what to remove: a target such as macs=0.5 (--target), or a sparsity above 0 "
            "(--sparsity)"
        )
    if section.sparsity and job.recover is None:
        raise EdgeheadsError(
            f"sparsity {section.sparsity:g} is reached while training, and there is no data to "
            "train on; give labelled data, or only a target"
        )
    flat = flat_model(model)
    report = PruneReport(section.target, precision=section.precision)
    timed: list[tuple[Stage, keras.Model]] = []

    def look(title: str, current: keras.Model) -> Stage:
        report.stages.append(
            Stage.of(title, current, dict(job.metrics(current) if job.metrics else {}))
        )
        return report.stages[-1]

    timed.append((look("original", flat), flat))
    rounds = _rounds(flat, job, session)
    count = section.rounds if section.target else 1
    for number in range(1, count + 1):
        with progress.step(f"Pruning, round {number} of {count}"):
            current, pruned = next(rounds)
        if pruned:
            report.widths, report.protected = pruned.widths, pruned.protected
            stage = look(f"round {number}, pruned", current)
        if job.recover:
            job.recover(current, number == count)
            stage = look(f"round {number}, recovered", current)
        timed.append((stage, current))
    precisions = list(job.precisions)
    if section.target and parse_target(section.target).measured:
        precisions = list(dict.fromkeys([*precisions, section.precision]))
    with progress.step(f"Timing {' and '.join(precisions)}, in turn"):
        measure_files(report, timed, precisions, job.exporter, session, settings)
    return current, report


def _rounds(
    model: keras.Model, job: PruneJob, session: DeviceSession
) -> Iterator[tuple[keras.Model, Pruned | None]]:
    section = job.section
    if section.target is None:
        channels = Channels.follow(model)
        yield remove_channels(channels, channels.none), None
        return
    target = parse_target(section.target)
    criterion = Criterion(
        section.importance,
        section.normalization,
        Limits(section.scope, section.multiple, section.min_fraction),
        job.gradients,
        job.protect,
    )
    meter: Meter | None = None
    if target.measured:
        meter = FileMeter(target.kind, section.precision, job.exporter, session)
    for pruned in prune_in_rounds(model, target, section.rounds, criterion, meter):
        yield pruned.model, pruned
