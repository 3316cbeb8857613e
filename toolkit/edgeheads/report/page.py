"""The report as one HTML page that needs nothing beside it."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

from edgeheads.bundle import Bundle
from edgeheads.errors import MissingDependencyError
from edgeheads.evaluate import bundle_task
from edgeheads.report.charts import curve, histogram, scatter

__all__ = ["to_html"]

_SAMPLES = 2
_SAMPLE_HEIGHT = 192


def to_html(content: dict[str, Any]) -> str:
    """Return a page of what `collect_report` returned, with drawings of golden images.

    Raises:
        MissingDependencyError: Jinja or Pillow is not installed.
    """
    try:
        import jinja2
        from markupsafe import Markup
    except ImportError:
        raise MissingDependencyError("jinja2", "report", "an HTML report") from None
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.ChainableUndefined)
    source = (Path(__file__).parent / "page.html.j2").read_text(encoding="utf-8")
    # Charts escape their own texts.
    return environment.from_string(source).render(
        **content,
        samples={one["folder"]: _samples(Bundle(one["folder"])) for one in content["bundles"]},
        scatter=lambda one: Markup(scatter(one)),  # noqa: S704
        histogram=lambda values, title: Markup(histogram(values, title)),  # noqa: S704
        curve=lambda points, title: Markup(curve(points, title)),  # noqa: S704
        series=_series,
        number=_number,
    )


def _samples(bundle: Bundle) -> list[str]:
    """Return data URIs of the first golden images beside what the file's stored outputs say."""
    try:
        from PIL import Image
    except ImportError:
        raise MissingDependencyError("pillow", "images", "drawing predictions") from None
    from edgeheads.data.images import resize_rgb

    golden, contract, task = bundle.golden(), bundle.contract, bundle_task(bundle)
    found = []
    for index, image in enumerate(golden["images"][:_SAMPLES]):
        stored = {
            spec.name: golden[f"expected/{spec.name}"][index : index + 1]
            for spec in contract.outputs
        }
        prediction = task.decode(contract.dequantize(stored), contract.decoding)
        width = max(1, round(image.shape[1] * _SAMPLE_HEIGHT / image.shape[0]))
        shown = resize_rgb(image, (_SAMPLE_HEIGHT, width))
        file = io.BytesIO()
        Image.fromarray(task.draw(shown, prediction, contract.labels)).save(file, "PNG")
        found.append(f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}")
    return found


def _series(benchmark: dict[str, Any]) -> list[float]:
    return [value for one in benchmark["repeats"] for value in one.get("series_ms") or []]


def _number(value: Any) -> str:
    return "–" if not isinstance(value, int | float) else f"{value:.4g}"
