"""What is written about a training."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgeheads.tasks.base import Metric
from edgeheads.training.history import History, write_csv, write_curves

ERROR = Metric("error", "Error", "m", False, 0, 10, 0.1)
SCORE = Metric("score", "Score", "", True, 0, 1, 0.1)


def test_best_follows_the_metric_s_direction_and_the_first_of_equals() -> None:
    for judge, values, best in [
        (ERROR, [0.5, 0.3, 0.4, 0.3], 1),
        (SCORE, [0.5, 0.3, 0.6, 0.6], 2),
    ]:
        history = History()
        improved = [history.add_validation({judge.name: value}, judge) for value in values]
        assert history.best == best
        assert improved == [index in (0, best) for index in range(4)]


def test_a_value_that_is_no_number_is_never_better() -> None:
    history = History()
    assert history.add_validation({"score": 0.1}, SCORE)
    assert not history.add_validation({"score": float("nan")}, SCORE)


def test_rows_average_the_loss_since_the_row_before() -> None:
    """400 steps in rows of 2; the validation after step 3 cuts one row in two."""
    history = History(losses=[4.0, 2.0, 1.0])
    history.add_validation({"error": 0.5}, ERROR)
    history.losses += [3.0, 5.0]
    assert history.rows(400) == [
        {"step": 2, "loss": 3.0},
        {"step": 3, "loss": 1.0, "error": 0.5},
        {"step": 4, "loss": 3.0},
        {"step": 5, "loss": 5.0},
    ]


def test_csv_has_a_column_per_metric_and_the_rate_of_the_step(tmp_path: Path) -> None:
    history = History(losses=[4.0, 2.0])
    history.add_validation({"error": 0.5}, ERROR)
    write_csv(history, 2, lambda step: step / 10, tmp_path / "training.csv")
    with (tmp_path / "training.csv").open() as file:
        assert list(csv.DictReader(file)) == [
            {"step": "1", "learning_rate": "0.0", "loss": "4.0", "error": ""},
            {"step": "2", "learning_rate": "0.1", "loss": "2.0", "error": "0.5"},
        ]


def test_curves_show_loss_and_metric(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    history = History(losses=list(np.linspace(3, 1, 50)))
    write_curves(history, 50, ERROR, tmp_path / "plain.png")
    history.add_validation({"error": 0.5}, ERROR)
    write_curves(history, 50, ERROR, tmp_path / "validated.png")
    images = [np.asarray(Image.open(tmp_path / f"{name}.png")) for name in ("plain", "validated")]
    orange = [np.all(np.abs(image[..., :3] - [255.0, 127, 14]) < 40, -1).sum() for image in images]
    assert orange[0] == 0
    assert orange[1] > 50
    assert sorted(path.name for path in tmp_path.iterdir()) == ["plain.png", "validated.png"]
