"""Which channels of a graph belong together: what must be removed at once, or not at all."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from edgeheads.compression.graph import Call, calls
from edgeheads.compression.macs import kernels

__all__ = ["ChannelGroup", "Channels", "Follower", "Slot"]

Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Slot:
    """An axis of one weight along which lie channels.

    Attributes:
        layer: its name.
        weight: position among the layer's weights.
        axis: of the weight.
        labels: the channel that each index of the axis stands for.
        makes: the weight is the kernel that makes these channels, rather than one that takes them.
    """

    layer: str
    weight: int
    axis: int
    labels: Labels
    makes: bool = False


@dataclass(frozen=True)
class ChannelGroup:
    """Units that are removed one by one, all with the same consequences.

    A unit is a set of channels in all the layers that a residual sum, a depthwise convolution or
    the like ties together. Where it is removed, it is removed from all of them.

    Attributes:
        layers: those that make its channels, in topological order.
        units: position of each unit among all of the graph's.
        width: channels of a unit in the first of the layers; more than 1 in a grouped convolution.
    """

    layers: tuple[str, ...]
    units: Labels
    width: int


class Follower:
    """Takes notes while the graph is followed: which channels are one, which must stay.

    A channel is a number. Every tensor [..., C] has C labels, one per index of its last axis.

    Attributes:
        labels: of every tensor that was followed, by its id.
        protected: {layer: why the channels around it stay}.
    """

    def __init__(self) -> None:
        self._parents: list[int] = []
        self.labels: dict[int, Labels] = {}
        self._slots: dict[tuple[str, int, int], Slot] = {}
        self._fixed: dict[int, str] = {}
        self.protected: dict[str, str] = {}

    def new(self, count: int) -> Labels:
        """Return labels of channels that nothing is known of."""
        first = len(self._parents)
        self._parents.extend(range(first, first + count))
        return np.arange(first, first + count)

    def of(self, tensor: Any) -> Labels:
        """Return the labels of a tensor that was followed already."""
        return self.labels[id(tensor)]

    def set(self, tensor: Any, labels: Labels) -> None:
        """Say what the channels of a tensor are."""
        self.labels[id(tensor)] = labels

    def unify(self, first: Labels, second: Labels) -> None:
        """Say that two tensors' channels are the same, index by index."""
        for a, b in zip(first.tolist(), second.tolist(), strict=True):
            a, b = self._root(a), self._root(b)
            if a != b:
                self._parents[max(a, b)] = min(a, b)

    def fix(self, labels: Labels, reason: str) -> None:
        """Say that channels must stay."""
        for label in labels.tolist():
            self._fixed.setdefault(label, reason)

    def opaque(self, call: Call, reason: str) -> None:
        """Let a call's inputs and outputs stay as they are."""
        self.protected.setdefault(call.layer.name, reason)
        for tensor in call.inputs:
            self.fix(self.of(tensor), f"{call.layer.name}: {reason}")
        for tensor in call.outputs:
            self.fixed(tensor, f"{call.layer.name}: {reason}")

    def fixed(self, tensor: Any, reason: str) -> None:
        """Give a tensor channels that must stay."""
        shape = tensor.shape
        self.set(tensor, self.new(int(shape[-1]) if len(shape) > 1 and shape[-1] else 0))
        self.fix(self.of(tensor), reason)

    def attach(self, layer: Any, variable: Any, axis: int, labels: Labels) -> None:
        """Say which channels a weight takes along an axis; those of an earlier call are the same.

        Args:
            layer: whose weight it is.
            variable: the weight.
            axis: may be negative.
            labels: as many as the axis is long.
        """
        key = _key(layer, variable, axis)
        if key in self._slots:
            self.unify(self._slots[key].labels, labels)
        else:
            self._slots[key] = Slot(*key, labels)

    def made(self, layer: Any, variable: Any, axis: int) -> Labels:
        """Return the channels that a kernel makes along an axis: new ones at its first call."""
        key = _key(layer, variable, axis)
        if key not in self._slots:
            self._slots[key] = Slot(*key, self.new(variable.shape[axis]), makes=True)
        return self._slots[key].labels

    def made_of(self, layer: Any, variable: Any, axis: int, labels: Labels) -> None:
        """Say that a depthwise kernel makes channels, each of the one that it takes."""
        self.attach(layer, variable, axis, labels)
        key = _key(layer, variable, axis)
        slot = self._slots[key]
        self._slots[key] = Slot(slot.layer, slot.weight, slot.axis, slot.labels, makes=True)

    def _root(self, label: int) -> int:
        parents = self._parents
        while parents[label] != label:
            parents[label] = label = parents[parents[label]]
        return label

    def finish(self) -> tuple[list[Slot], Labels, int]:
        """Return the slots; the unit of every label, -1 for those that stay; how many units."""
        roots = [self._root(label) for label in range(len(self._parents))]
        fixed = {roots[label] for label in self._fixed}
        units: dict[int, int] = {}
        numbers = [-1 if root in fixed else units.setdefault(root, len(units)) for root in roots]
        return list(self._slots.values()), np.array(numbers, np.int64), len(units)


@dataclass
class Channels:
    """The channels of a graph that can be removed, and what depends on them.

    Attributes:
        slots: every axis along which channels lie.
        count: how many units there are that can be removed.
        groups: the units, sorted by what they have in common.
        protected: {layer: why the channels around it stay}.
    """

    model: keras.Model
    slots: list[Slot]
    units: Labels
    count: int
    groups: list[ChannelGroup]
    protected: dict[str, str]
    _labels: dict[int, Labels] = field(default_factory=dict)
    _work: list[tuple[int, tuple[str, int]]] = field(default_factory=list)
    _shapes: dict[tuple[str, int], tuple[int, ...]] = field(default_factory=dict)

    @classmethod
    def follow(cls, model: keras.Model, protect: Iterable[str] = ()) -> Channels:
        """Follow the channels of a flat functional model from its inputs to its outputs.

        Args:
            model: flat, see `edgeheads.compression.graph.flatten`; it is not changed. A layer may
                be called several times.
            protect: names of layers whose outputs keep their channels; those that the model
                returns do so anyway, and so do those around layers that nothing is known of.
        """
        from edgeheads.compression.prune.rules import follow_call

        follower, kept = Follower(), set(protect)
        all_calls = list(calls(model))
        for call in all_calls:
            follow_call(follower, call)
            if call.layer.name in kept:
                follower.protected.setdefault(call.layer.name, "its output stays as it is")
                for tensor in call.outputs:
                    follower.fix(follower.of(tensor), "its output stays as it is")
        for tensor in model.outputs:
            follower.fix(follower.of(tensor), "an output of the model")
        slots, units, count = follower.finish()
        found = cls(model, slots, units, count, _groups(slots, units), follower.protected)
        found._labels = follower.labels
        for layer in model.layers:
            for index, variable in enumerate(layer.weights):
                found._shapes[layer.name, index] = tuple(variable.shape)
        for call in all_calls:
            for positions, kernel in kernels(call):
                found._work.append((positions, _key(call.layer, kernel, 0)[:2]))
        return found

    def shapes(self, removed: NDArray[np.bool_]) -> dict[tuple[str, int], tuple[int, ...]]:
        """Return {(layer, weight): shape} of all weights once units were removed.

        Args:
            removed: [count], whether each unit goes.
        """
        shapes = {key: list(shape) for key, shape in self._shapes.items()}
        for slot in self.slots:
            shapes[slot.layer, slot.weight][slot.axis] = int(self.kept(slot, removed).sum())
        return {key: tuple(shape) for key, shape in shapes.items()}

    def kept(self, slot: Slot, removed: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return, for each index of a slot's axis, whether it stays."""
        return self._stay(slot.labels, removed)

    def kept_of(self, tensor: Any, removed: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return, for each index of the last axis of a tensor of the graph, whether it stays."""
        return self._stay(self._labels[id(tensor)], removed)

    def _stay(self, labels: Labels, removed: NDArray[np.bool_]) -> NDArray[np.bool_]:
        # Unit -1, of what is not removed, is the last one.
        return ~np.append(removed, False)[self.units[labels]]

    def macs(self, removed: NDArray[np.bool_]) -> int:
        """Return the multiply-accumulates of one image once units were removed."""
        shapes = self.shapes(removed)
        return sum(positions * int(np.prod(shapes[key])) for positions, key in self._work)

    def parameters(self, removed: NDArray[np.bool_]) -> int:
        """Return the number of weights once units were removed."""
        return sum(int(np.prod(shape)) for shape in self.shapes(removed).values())

    @property
    def none(self) -> NDArray[np.bool_]:
        """Nothing removed."""
        return np.zeros(self.count, bool)


def _groups(slots: Sequence[Slot], units: Labels) -> list[ChannelGroup]:
    """Sort units by the slots they lie in, and how often they do."""
    places: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
    for index, slot in enumerate(slots):
        for unit, times in Counter(units[slot.labels].tolist()).items():
            places[unit].append((index, times))
    places.pop(-1, None)
    together: defaultdict[tuple[tuple[int, int], ...], list[int]] = defaultdict(list)
    for unit, found in places.items():
        together[tuple(found)].append(unit)
    groups = []
    for key, members in together.items():
        makers = [(slots[index].layer, times) for index, times in key if slots[index].makes]
        names = tuple(dict.fromkeys(name for name, _ in makers))
        groups.append(ChannelGroup(names, np.sort(np.array(members)), makers[0][1]))
    return sorted(groups, key=lambda group: int(group.units[0]))


def _key(layer: Any, variable: Any, axis: int) -> tuple[str, int, int]:
    index = next(i for i, one in enumerate(layer.weights) if one is variable)
    return layer.name, index, axis % len(variable.shape)
