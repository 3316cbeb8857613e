"""Mixed precision: the fewest float layers with which a file stays within a budget."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from edgeheads.compression.quantize.bias_correction import correct_biases
from edgeheads.compression.quantize.calibration import (
    DEFAULT_CALIBRATION,
    Images,
    Range,
    measure_ranges,
)
from edgeheads.compression.quantize.quantizer import quantize_float_model
from edgeheads.compression.quantize.schemes import Scheme, get_scheme
from edgeheads.compression.sensitivity.errors import analyse
from edgeheads.compression.sensitivity.layers import Layer, find_layers, keep_float_for
from edgeheads.errors import CheckFailedError, EdgeheadsError

__all__ = ["Attempt", "BudgetError", "MixedResult", "mixed_precision"]


@dataclass(frozen=True)
class Attempt:
    """A file that was tried.

    Attributes:
        kept: names of the layers that stayed float.
        drop: by how much its metric is worse than the float model's.
    """

    kept: tuple[str, ...]
    drop: float


@dataclass(frozen=True)
class MixedResult:
    """The file that stays within the budget.

    Attributes:
        content: the .tflite file that was scored, byte for byte.
        kept: the layers that stayed float, in computing order.
        drop: of this file.
        max_drop: the budget.
        attempts: all that was tried, in order; the first is int8 throughout.
        metric: heading of what drops.
    """

    content: bytes
    kept: tuple[Layer, ...]
    drop: float
    max_drop: float
    attempts: tuple[Attempt, ...]
    metric: str = "the metric"

    def as_json(self) -> dict[str, Any]:
        """Return all but the file as plain JSON values."""
        return {
            "metric": self.metric,
            "max_drop": self.max_drop,
            "drop": self.drop,
            "kept_float": [layer.name for layer in self.kept],
            "attempts": [asdict(one) for one in self.attempts],
        }


class BudgetError(CheckFailedError):
    """No choice of float layers stays within the budget; `closest` came nearest."""

    exit_code = 4

    def __init__(self, max_drop: float, closest: Attempt, layers: int, metric: str) -> None:
        super().__init__(
            f"{metric} may drop by {max_drop:g}, and the closest file drops by "
            f"{closest.drop:.4g}, with {len(closest.kept)} of {layers} layers in float; raise the "
            "budget, calibrate with more images, or choose float16"
        )
        self.closest = closest


def mixed_precision(
    float_model: bytes,
    images: Images,
    drop_of: Callable[[bytes], float],
    max_drop: float,
    *,
    scheme: Scheme | None = None,
    calibration: str = DEFAULT_CALIBRATION,
    per_channel: bool = True,
    order: Sequence[str] | None = None,
    cost: Literal["layers", "macs"] = "layers",
    metric: str = "the metric",
) -> MixedResult:
    """Keep as few layers float as the budget asks for.

    Layers become float in order of sensitivity, and bisection finds how many are needed. Each of
    those then becomes int8 again where the file stays within the budget without it. Every file is
    scored as it would be written. The result is small, not proved to be the smallest: a drop need
    not grow with each layer that is quantized.

    Args:
        float_model: of `convert_to_float_tflite`.
        images: calibration inputs; see `measure_ranges`.
        drop_of: by how much the metric of a file is worse than the float model's, in the unit of
            `max_drop`; score on samples that neither trained nor test the model.
        max_drop: the budget.
        scheme: one with int8 activations; default: int8.
        calibration: how ranges are measured; a name from CALIBRATIONS.
        per_channel: give each channel of the weights a scale of its own.
        order: names of all layers, the most sensitive first; default: by `analyse`.
        cost: what is tried to become int8 again first: "layers", the least sensitive; "macs", the
            most expensive.
        metric: what texts call what drops.

    Raises:
        BudgetError: not even with all layers in float.
        EdgeheadsError: a budget below zero, an order that is not of the layers.
    """
    if not 0 <= max_drop < float("inf"):
        raise EdgeheadsError(f"max_drop must be finite and at least 0, received {max_drop}")
    layers = find_layers(float_model)
    if order is not None and sorted(order) != sorted(layer.name for layer in layers):
        raise EdgeheadsError(
            f"order must name each of the {len(layers)} layers once, received {list(order)}"
        )
    scheme = scheme or get_scheme("int8")
    ranges = measure_ranges(float_model, images, calibration)
    search = _Search(float_model, images, drop_of, scheme, ranges, per_channel)
    if search.drop([]) > max_drop:
        if order is None:
            found = analyse(
                float_model,
                images,
                scheme=scheme,
                calibration=calibration,
                per_channel=per_channel,
            )
            order = [one.layer.name for one in found]
        kept = _bisected(search, order, max_drop)
        if kept is None:
            closest = min(search.attempts, key=lambda one: (one.drop, len(one.kept)))
            raise BudgetError(max_drop, closest, len(layers), metric)
        macs = {layer.name: layer.macs for layer in layers}
        again = sorted(kept, key=macs.__getitem__, reverse=True) if cost == "macs" else kept[::-1]
        for name in again:
            fewer = [one for one in kept if one != name]
            if fewer and search.drop(fewer) <= max_drop:
                kept = fewer
    else:
        kept = []
    return MixedResult(
        search.file(kept),
        tuple(layer for layer in layers if layer.name in kept),
        search.drop(kept),
        max_drop,
        tuple(search.attempts),
        metric,
    )


class _Search:
    def __init__(
        self,
        float_model: bytes,
        images: Images,
        drop_of: Callable[[bytes], float],
        scheme: Scheme,
        ranges: Mapping[int, Range],
        per_channel: bool,
    ) -> None:
        self._float_model = float_model
        self._images = images
        self._drop_of = drop_of
        self._scheme = scheme
        self._ranges = ranges
        self._per_channel = per_channel
        self._known: dict[frozenset[str], float] = {}
        self.attempts: list[Attempt] = []

    def file(self, kept: Collection[str]) -> bytes:
        """Return the file in which the layers stay float; the same at every call."""
        names = keep_float_for(self._float_model, kept)
        quantized = quantize_float_model(
            self._float_model,
            self._ranges,
            self._scheme,
            per_channel=self._per_channel,
            keep_float=names,
        )
        return correct_biases(self._float_model, quantized, self._images)

    def drop(self, kept: Collection[str]) -> float:
        """Return the drop of that file; no file is scored twice."""
        key = frozenset(kept)
        if key not in self._known:
            self._known[key] = self._drop_of(self.file(kept))
            self.attempts.append(Attempt(tuple(kept), self._known[key]))
        return self._known[key]


def _bisected(search: _Search, order: Sequence[str], max_drop: float) -> list[str] | None:
    """Return the first so many of `order` with which the drop is within; None: not even all."""
    low, high = 0, len(order)
    if search.drop(order) > max_drop:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        if search.drop(order[:middle]) <= max_drop:
            high = middle
        else:
            low = middle
    return list(order[:high])
