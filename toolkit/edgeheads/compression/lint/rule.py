"""What a rule is, and the graph it looks at."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import keras

from edgeheads.compression.fold import fold_batch_norms, laid_open
from edgeheads.compression.graph import Call, OutputsOf, calls
from edgeheads.device import DeviceProfile

__all__ = ["Network", "Rule", "kind_of"]


class Network:
    """A functional model with its models inside laid open, and the device it is for.

    Attributes:
        model: as one flat graph, of what the file holds.
        device: None where no device is named.
        calls: of layers and operations, each after those that feed it.
    """

    def __init__(
        self,
        model: keras.Model,
        device: DeviceProfile | None = None,
        outputs_of: OutputsOf | None = None,
    ) -> None:
        flat = laid_open(model)
        # The layers behind the file's outputs are computed elsewhere, from its results.
        self.model = flat if outputs_of is None else keras.Model(flat.input, outputs_of(flat))
        self.device = device
        self.calls = tuple(calls(self.model))
        self._producers = {id(one): call for call in self.calls for one in call.outputs}
        self._readers: dict[int, list[Call]] = {}
        for call in self.calls:
            for tensor in call.inputs:
                self._readers.setdefault(id(tensor), []).append(call)
        self._outputs = {id(tensor) for tensor in self.model.outputs}

    @cached_property
    def folded(self) -> keras.Model:
        """The model as it is converted: batch normalization is part of the weights."""
        return fold_batch_norms(self.model)

    def producer(self, tensor: Any) -> Call:
        """Return the call that computes a tensor."""
        return self._producers[id(tensor)]

    def readers(self, call: Call) -> list[Call]:
        """Return the calls that take any output of a call."""
        return [one for tensor in call.outputs for one in self._readers.get(id(tensor), [])]

    def is_output(self, call: Call) -> bool:
        """Whether the model returns an output of a call."""
        return any(id(tensor) in self._outputs for tensor in call.outputs)


# Yields (layer, what was found there).
Look = Callable[[Network], Iterable[tuple[str, str]]]


@dataclass(frozen=True)
class Rule:
    """One kind of trouble.

    Attributes:
        id: in lower case with hyphens; for scripts.
        title: what is there.
        severity: see `Finding`.
        why: what it does to int8 or to the device.
        instead: what to use in its place.
        look: finds the layers.
        is_fixable: whether `--fix` takes it away where it can be done without a change of the
            function.
        is_int8: whether it only matters to a file in int8.
    """

    id: str
    title: str
    severity: str
    why: str
    instead: str
    look: Look
    is_fixable: bool = False
    is_int8: bool = True


def kind_of(layer: Any) -> str:
    """Return the class of a layer, or of an operation of `keras.ops`, by its name."""
    return type(layer).__name__
