"""Pruning any functional model, of which nothing is known but, perhaps, labelled arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from edgeheads.compression.legacy import load_any
from edgeheads.compression.prune.distill import DistillationLoss, with_taught_outputs
from edgeheads.compression.prune.importance import loss_gradients
from edgeheads.compression.prune.job import PruneJob, run
from edgeheads.compression.prune.magnitude import MagnitudePruning, PolynomialSchedule
from edgeheads.compression.prune.meter import Exporter
from edgeheads.compression.prune.run import (
    PruneResult,
    quiet_tensorflow,
    require_other_folder,
    save_report,
)
from edgeheads.device import DeviceProfile
from edgeheads.errors import EdgeheadsError
from edgeheads.progress import Progress, SilentProgress, Step
from edgeheads.recipe import PruneSection
from edgeheads.runtime import BenchSettings, DeviceSession
from edgeheads.tasks.base import Array
from edgeheads.train import Stopwatch, model_path, prepare_folder, set_up_backend
from edgeheads.training.trainer import Trainer

__all__ = ["LabelledArrays", "prune_alone"]

_BATCH = 16
_RATE = 1e-3
_TEST_SHARE = 5


def prune_alone(
    model_file: Path,
    folder: Path,
    section: Mapping[str, Any],
    *,
    data: str | None = None,
    seed: int = 0,
    profile: DeviceProfile | None = None,
    bench_settings: BenchSettings | None = None,
    progress: Progress | None = None,
) -> PruneResult:
    """Prune a model without a recipe, measure, and save it.

    Args:
        model_file: a `.keras` or `.h5` file, see `load_any`.
        folder: for model.keras and pruning.json, written when all is done.
        section: fields of a recipe's `prune` section. Without `importance`: "taylor" with data,
            "l2" without.
        data: an .npz file, see `LabelledArrays`; None: neither recovery nor scores.
        seed: of the order of training.
        profile: where to time; default: this machine.
        bench_settings: of the measurement.
        progress: where to report.

    Raises:
        EdgeheadsError: a file that cannot be read or that does not fit the other, a field that is
            not what it must be, or a target that cannot be reached.
    """
    progress = progress or SilentProgress()
    require_other_folder(model_file, folder)
    PruneSection.of(section)
    set_up_backend(seed)
    quiet_tensorflow()
    prepare_folder(folder)
    watch = Stopwatch()
    model = load_any(model_file)
    arrays = LabelledArrays.read(Path(data), model) if data else None
    options = PruneSection.of({"importance": "taylor" if arrays else "l2", **section})
    if options.importance == "taylor" and arrays is None:
        raise EdgeheadsError(
            "importance taylor needs labelled data: give --data FILE.npz with x and y, or choose "
            "l1, l2 or bn_scale"
        )
    job = PruneJob(options) if arrays is None else _job(model, arrays, options, seed, progress)
    with watch.stage("prune, recover and time"), DeviceSession(profile) as session:
        pruned, report = run(model, job, session, progress, bench_settings)
    path = model_path(folder)
    draft = path.with_name(".model-draft.keras")
    try:
        pruned.save(draft)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    save_report(report, folder)
    return PruneResult(folder, path, report, watch.seconds)


@dataclass(frozen=True)
class LabelledArrays:
    """Inputs and labels of a model with one input and one output, from an .npz file.

    Attributes:
        x: [N, H, W, C], as the model takes them. The last fifth is the test set.
        y: [N] class numbers, of a classifier; or [N, ...] of the output's shape, which is then
            compared by its squared error.
        logits: a classifier's output is logits rather than probabilities.
    """

    x: Array
    y: Array
    logits: bool

    @classmethod
    def read(cls, path: Path, model: keras.Model) -> LabelledArrays:
        """Read x and y, and compare their shapes with the model's.

        Raises:
            EdgeheadsError: a file that cannot be read, lacks one of them, or does not fit.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                x, y = file["x"], file["y"]
        except Exception as error:  # zipfile and NumPy each have their own
            raise EdgeheadsError(
                f"data {path} cannot be read ({' '.join(str(error).split())[:150]}); without a "
                "recipe, expected an .npz file with arrays x and y"
            ) from None
        if len(model.inputs) != 1 or len(model.outputs) != 1:
            raise EdgeheadsError(
                f"labelled arrays are for a model with one input and one output, {model.name!r} "
                f"has {len(model.inputs)} and {len(model.outputs)}; leave --data out"
            )
        takes, returns = tuple(model.inputs[0].shape[1:]), tuple(model.outputs[0].shape[1:])
        classes = y.ndim == 1 and np.issubdtype(y.dtype, np.integer) and len(returns) == 1
        fits = len(x) == len(y) >= 2 * _TEST_SHARE and x.shape[1:] == takes
        if not fits or not (classes or y.shape[1:] == returns):
            raise EdgeheadsError(
                f"data {path} must hold at least {2 * _TEST_SHARE} x of shape {takes}, and as many "
                f"y: class numbers, or of shape {returns}; received x {x.shape} and y {y.shape} "
                f"of {y.dtype}"
            )
        if classes and not 0 <= y.min() <= y.max() < returns[0]:
            raise EdgeheadsError(
                f"data {path} has classes {y.min()} to {y.max()}, the model knows 0 to "
                f"{returns[0] - 1}"
            )
        logits = False
        if classes:
            values = np.asarray(model.predict(x[:_BATCH], verbose=0), np.float32)
            # In 16 bits the sum of probabilities is rounded to hundredths.
            logits = bool(values.min() < 0) or not np.allclose(values.sum(axis=-1), 1, atol=0.02)
        return cls(x.astype(np.float32), y, logits)

    @property
    def classes(self) -> bool:
        """Whether y are class numbers."""
        return self.y.ndim == 1 and bool(np.issubdtype(self.y.dtype, np.integer))

    @property
    def train(self) -> tuple[Array, Array]:
        """What is trained on."""
        end = len(self.x) - len(self.x) // _TEST_SHARE
        return self.x[:end], self.y[:end]

    @property
    def test(self) -> tuple[Array, Array]:
        """What is scored on."""
        end = len(self.x) - len(self.x) // _TEST_SHARE
        return self.x[end:], self.y[end:]

    def loss(self) -> Any:
        """Return the Keras loss."""
        if not self.classes:
            return keras.losses.MeanSquaredError()
        return keras.losses.SparseCategoricalCrossentropy(from_logits=self.logits)

    def score(self, model: keras.Model) -> dict[str, float]:
        """Return "accuracy" of a classifier, "mse" of anything else, on the test set."""
        x, y = self.test
        found = np.asarray(model.predict(x, batch_size=_BATCH, verbose=0), np.float32)
        if self.classes:
            return {"accuracy": float((found.argmax(axis=-1) == y).mean())}
        return {"mse": float(np.square(found - y).mean())}


def _job(
    teacher: keras.Model,
    arrays: LabelledArrays,
    section: PruneSection,
    seed: int,
    progress: Progress,
) -> PruneJob:
    x, y = arrays.train
    loss = arrays.loss()
    teach = teacher.predict_on_batch if section.distill else None

    def recover(model: keras.Model, last: bool) -> None:
        steps = section.recover_steps
        callbacks: list[Any] = []
        if last and section.sparsity:
            schedule = PolynomialSchedule(
                section.sparsity, end=max(1, round(0.6 * steps)), every=max(1, steps // 100)
            )
            callbacks.append(MagnitudePruning(model, schedule, section.pattern))
        called, objective = model, loss
        if section.distill:
            called = with_taught_outputs(model, {"output": model.outputs[0]})
            objective = DistillationLoss(loss, section.distill)
        trainer = Trainer(called, objective)
        rate = keras.optimizers.schedules.CosineDecay(_RATE * section.recover_rate, steps)
        trainer.compile(optimizer=keras.optimizers.Adam(rate), jit_compile=False)
        with progress.step("Recovering", steps) as step:
            counter = _Steps(step)
            trainer.fit(
                _Batches(x, y, steps, seed, teach),
                shuffle=False,
                verbose=0,
                callbacks=[*callbacks, counter],
            )
        if not np.isfinite(counter.loss):
            raise EdgeheadsError(
                f"the recovery diverged: the loss is {counter.loss}; lower --recover-rate"
            )

    # Files are often sorted by class: the first samples would be of one.
    rows = np.random.default_rng(seed).permutation(len(x))[: section.gradient_batches * _BATCH]
    parts = [rows[i : i + _BATCH] for i in range(0, len(rows), _BATCH)]
    batches = [(x[part], y[part]) for part in parts]
    return PruneJob(
        section,
        Exporter(calibration=lambda: (one[None] for one in x[:_BATCH])),
        gradients=loss_gradients(lambda targets, outputs: loss(targets, outputs), batches),
        recover=recover,
        metrics=arrays.score,
    )


class _Batches(keras.utils.PyDataset):
    """Batches of labelled arrays, pass after pass, each in an order of its own.

    Args:
        x: [N, ...].
        y: [N, ...].
        steps: how many batches there are.
        seed: of the order.
        teach: x -> what the targets of `DistillationLoss` hold besides y.
    """

    def __init__(
        self, x: Array, y: Array, steps: int, seed: int, teach: Callable[[Array], Array] | None
    ) -> None:
        super().__init__(workers=1, use_multiprocessing=False)
        self._x = x
        self._y = y
        self._steps = steps
        self._seed = seed
        self._teach = teach

    @property
    def num_batches(self) -> int:
        """How many batches there are."""
        return self._steps

    def __getitem__(self, index: int) -> tuple[Array, Any]:
        """Return batch `index`."""
        first = index * _BATCH
        passes = range(first // len(self._x), (first + _BATCH - 1) // len(self._x) + 1)
        order = np.concatenate([self._order(one) for one in passes])
        rows = order[first - passes[0] * len(self._x) :][:_BATCH]
        x, y = self._x[rows], self._y[rows]
        if self._teach is None:
            return x, y
        return x, {"task": y, "teacher": {"output": self._teach(x)}}

    def _order(self, number: int) -> Array:
        return np.random.default_rng((self._seed, number)).permutation(len(self._x))


class _Steps(keras.callbacks.Callback):
    """Moves the progress bar, and remembers the loss."""

    def __init__(self, step: Step) -> None:
        super().__init__()
        self._step = step
        self.loss = 0.0

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        self.loss = float((logs or {})["step_loss"])
        self._step.advance(note=f"loss {self.loss:.3f}")
