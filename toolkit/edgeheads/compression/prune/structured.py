"""Structured pruning: a smaller ordinary model with fewer channels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import keras
import numpy as np
from numpy.typing import NDArray

from edgeheads.compression.graph import flatten
from edgeheads.compression.prune.channels import Channels
from edgeheads.compression.prune.importance import Gradients, Scores, importance
from edgeheads.compression.prune.select import Limits, choose, smallest_amount
from edgeheads.compression.prune.surgery import remove_channels
from edgeheads.compression.prune.target import Target, parse_target
from edgeheads.errors import EdgeheadsError

__all__ = ["Criterion", "Meter", "Pruned", "flat_model", "prune_channels", "prune_in_rounds"]

# Model -> its bytes or milliseconds.
Meter = Callable[[keras.Model], float]

# Halvings of the amount that is removed: each costs next to nothing, or a conversion and a timing.
_COUNTED_STEPS, _MEASURED_STEPS = 24, 6


@dataclass(frozen=True)
class Criterion:
    """What decides which channels go.

    Attributes:
        importance: "l1", "l2", "bn_scale" or "taylor", see `importance`.
        normalization: of each group's scores: "mean", "max", "l2" or "none".
        limits: what may be removed.
        gradients: for "taylor", see `loss_gradients`.
        protect: layers whose outputs keep their channels, besides the model's outputs.
    """

    importance: str = "l2"
    normalization: str = "mean"
    limits: Limits = field(default_factory=Limits)
    gradients: Gradients | None = None
    protect: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pruned:
    """A pruned model.

    Attributes:
        model: with fewer channels; an ordinary functional model, not compiled.
        widths: {layer: (channels before, after)} of the layers that make fewer.
        macs: multiply-accumulates of one image, before and after.
        parameters: before and after.
        protected: {layer: why the channels around it stayed}.
        target: what was asked for, as an amount.
        reached: likewise.
    """

    model: keras.Model
    widths: dict[str, tuple[int, int]]
    macs: tuple[int, int]
    parameters: tuple[int, int]
    protected: dict[str, str]
    target: Target
    reached: float


def flat_model(model: keras.Model) -> keras.Model:
    """Return the model, or a flat copy where it is sequential or holds models as layers."""
    functional = hasattr(model, "_nodes_by_depth") and not isinstance(model, keras.Sequential)
    nested = functional and any(isinstance(layer, keras.Model) for layer in model.layers)
    return model if functional and not nested else flatten(model)


def prune_channels(
    model: keras.Model,
    target: Target | str,
    criterion: Criterion | None = None,
    meter: Meter | None = None,
) -> Pruned:
    """Remove the least important channels until a target is met.

    Args:
        model: functional, of stock layers; channels around others stay. It is not changed.
        target: a `Target`, or its text such as "macs=0.5".
        criterion: what decides which channels go.
        meter: measures a model, for the targets "size" and "latency"; see `FileMeter`.

    Raises:
        EdgeheadsError: a model that is not functional or holds NaN; a target that cannot be
            reached, with the closest that can.
    """
    search = _Search.over(model, target, criterion or Criterion(), meter)
    channels = search.channels
    removed = search.run()
    return Pruned(
        remove_channels(channels, removed),
        _widths(channels, removed),
        (channels.macs(channels.none), channels.macs(removed)),
        (channels.parameters(channels.none), channels.parameters(removed)),
        channels.protected,
        replace(search.target, value=search.limit, relative=False),
        search.value(removed),
    )


def prune_in_rounds(
    model: keras.Model,
    target: Target | str,
    rounds: int,
    criterion: Criterion | None = None,
    meter: Meter | None = None,
) -> Iterator[Pruned]:
    """Prune a little, several times; whoever takes a round's model trains it in place.

    Args:
        model: see `prune_channels`; it is not changed.
        target: of the last round; the others go there in equal ratios.
        rounds: at least 1.
        criterion: see `prune_channels`.
        meter: see `prune_channels`.

    Yields:
        Each round's result, "before" of which is the model before the first round.

    Raises:
        EdgeheadsError: see `prune_channels`; before the first round.
    """
    if rounds < 1:
        raise EdgeheadsError(f"rounds must be at least 1, received {rounds}")
    criterion = criterion or Criterion()
    # What can be reached does not depend on gradients, which are dear.
    free = "l2" if criterion.importance == "taylor" else criterion.importance
    search = _Search.over(model, target, replace(criterion, importance=free), meter)
    search.require_reachable()
    originally = {group.layers: len(group.units) for group in search.channels.groups}
    criterion = replace(criterion, limits=replace(criterion.limits, originally=originally))
    current, total = search.channels.model, None
    for index in range(rounds):
        step = search.target.step(search.before, index, rounds)
        pruned = prune_channels(current, step, criterion, meter)
        current, total = pruned.model, _since(total or pruned, pruned)
        yield total


@dataclass
class _Search:
    """The search for the smallest cut that meets a target."""

    channels: Channels
    scores: Scores
    limits: Limits
    target: Target
    meter: Meter | None
    _values: dict[bytes, float] = field(default_factory=dict)

    @classmethod
    def over(
        cls, model: keras.Model, target: Target | str, criterion: Criterion, meter: Meter | None
    ) -> _Search:
        target = parse_target(target) if isinstance(target, str) else target
        if target.measured and meter is None:
            raise EdgeheadsError(
                f"target {target.text} is measured on a file: pass a meter such as "
                "FileMeter(session), or choose macs or parameters"
            )
        flat = flat_model(model)
        _require_finite(flat)
        channels = Channels.follow(flat, criterion.protect)
        if not channels.count:
            raise EdgeheadsError(
                f"no channel of model {model.name!r} can be removed: {_reasons(channels)}"
            )
        scores = importance(
            channels,
            criterion.importance,
            normalization=criterion.normalization,
            gradients=criterion.gradients,
        )
        return cls(channels, scores, criterion.limits, target, meter)

    def run(self) -> NDArray[np.bool_]:
        if self.before <= self.limit:
            return self.channels.none
        self.require_reachable()
        steps = _MEASURED_STEPS if self.target.measured else _COUNTED_STEPS
        amount = smallest_amount(lambda one: self.value(self._chosen(one)) <= self.limit, steps)
        return self._chosen(amount)

    def require_reachable(self) -> None:
        closest = self.value(self._chosen(1.0))
        if closest > self.limit:
            share = closest / self.before
            amount = replace(self.target, value=closest, relative=False).text
            raise EdgeheadsError(
                f"target {self.target.text} cannot be reached: with all channels gone that may go, "
                f"{share:.1%} of the model's {self.target.kind} are left "
                f"({amount}; limits: min_fraction {self.limits.min_fraction:g}, multiple "
                f"{self.limits.multiple}; "
                f"{_reasons(self.channels)}); ask for {self.target.kind}={share + 0.005:.2f} or "
                "more, or lower the limits"
            )

    @property
    def before(self) -> float:
        return self.value(self.channels.none)

    @property
    def limit(self) -> float:
        return self.target.limit(self.before)

    def value(self, removed: NDArray[np.bool_]) -> float:
        if self.target.kind == "macs":
            return self.channels.macs(removed)
        if self.target.kind == "parameters":
            return self.channels.parameters(removed)
        key = removed.tobytes()
        if key not in self._values:
            assert self.meter is not None  # noqa: S101 - see `over`
            self._values[key] = self.meter(remove_channels(self.channels, removed))
        return self._values[key]

    def _chosen(self, amount: float) -> NDArray[np.bool_]:
        return choose(self.channels, self.scores, amount, self.limits)


def _widths(channels: Channels, removed: NDArray[np.bool_]) -> dict[str, tuple[int, int]]:
    found = {}
    for slot in channels.slots:
        kept = channels.kept(slot, removed)
        if slot.makes and not kept.all():
            found[slot.layer] = (len(kept), int(kept.sum()))
    return found


def _since(before: Pruned, last: Pruned) -> Pruned:
    """Return the last round's result with what was before the first, of all rounds before it."""
    changed = {
        name: (before.widths.get(name, width)[0], width[1]) for name, width in last.widths.items()
    }
    return replace(
        last,
        widths={**before.widths, **changed},
        macs=(before.macs[0], last.macs[1]),
        parameters=(before.parameters[0], last.parameters[1]),
    )


def _require_finite(model: keras.Model) -> None:
    for layer in model.layers:
        for variable in layer.weights:
            values = keras.ops.convert_to_numpy(variable)
            if keras.backend.is_float_dtype(variable.dtype) and not np.isfinite(values).all():
                raise EdgeheadsError(
                    f"model {model.name!r} holds NaN or infinite values in {variable.path}; "
                    "train it again before pruning it"
                )


def _reasons(channels: Channels) -> str:
    if not channels.protected:
        return "the outputs' channels stay"
    some = [f"{name}: {why}" for name, why in list(channels.protected.items())[:3]]
    more = len(channels.protected) - len(some)
    return f"protected: {'; '.join(some)}{f' and {more} more' if more > 0 else ''}"
