"""A picture of what int8 costs each layer."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO

from edgeheads.compression.sensitivity.errors import LayerError
from edgeheads.errors import MissingDependencyError

__all__ = ["plot_errors", "require_matplotlib"]


def require_matplotlib() -> None:
    """Raise MissingDependencyError where matplotlib is not installed."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        raise MissingDependencyError("matplotlib", "plots", "drawing the sensitivity") from None


def plot_errors(errors: Sequence[LayerError]) -> bytes:
    """Return the ratios of each layer, in dB, in the order given, as a PNG.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    require_matplotlib()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 1.5 + 0.22 * len(errors)), layout="constrained")
    axes = figure.subplots()
    rows = range(len(errors))
    for name, marker in (("isolated", "o"), ("accumulated", "x"), ("weights", "|")):
        axes.plot([getattr(one, name) for one in errors], rows, marker, label=name)
    axes.set_yticks(rows, [one.layer.name[-48:] for one in errors], fontsize=7)
    axes.invert_yaxis()
    axes.set_xlabel("signal to quantization noise, dB (less is worse)")
    axes.grid(axis="x", alpha=0.3)
    axes.margins(y=0.01)
    figure.legend(loc="outside upper center", ncols=3)
    picture = BytesIO()
    figure.savefig(picture, format="png", dpi=110)
    return picture.getvalue()
