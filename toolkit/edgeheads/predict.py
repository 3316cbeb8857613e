"""Pictures of what a Bundle predicts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from edgeheads.bundle import Bundle
from edgeheads.data.images import read_rgb, resize_rgb
from edgeheads.errors import EdgeheadsError
from edgeheads.evaluate import bundle_predictor, bundle_task
from edgeheads.runtime import DeviceSession
from edgeheads.tasks.base import Prediction

__all__ = ["predict_images"]

# A drawing is no larger than this on its longer side.
_MAX_SIDE = 640


def predict_images(
    bundle: Bundle, session: DeviceSession, images: Sequence[Path], folder: Path
) -> Iterator[tuple[Path, Prediction]]:
    """Draw each image beside its prediction, as `folder`/<name>-<task>.png.

    Yields:
        The picture's path, and the prediction.

    Raises:
        EdgeheadsError: an image that cannot be read, or a folder that cannot be written.
    """
    from PIL import Image

    stems = [path.stem for path in images]
    if twins := sorted({stem for stem in stems if stems.count(stem) > 1}):
        raise EdgeheadsError(
            f"{stems.count(twins[0])} images are called {twins[0]!r}, and their pictures would "
            "overwrite each other; draw them one by one, each with its own --out"
        )
    task = bundle_task(bundle)
    labels = bundle.contract.labels
    predict = bundle_predictor(bundle, session)
    for path in images:
        image = read_rgb(path)
        [prediction] = predict([resize_rgb(image, bundle.contract.image.size)])
        shrink = min(1.0, _MAX_SIDE / max(image.shape[:2]))
        height, width = (max(1, round(side * shrink)) for side in image.shape[:2])
        shown = resize_rgb(image, (height, width))
        target = folder / f"{path.stem}-{bundle.task}.png"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(task.draw(shown, prediction, labels)).save(target)
        except OSError as error:
            raise EdgeheadsError(
                f"cannot write {target} ({error.strerror or error}); "
                "choose another folder with --out"
            ) from None
        yield target, prediction
