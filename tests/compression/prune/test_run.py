"""Pruning a trained model with its recipe, alone, and within a conversion."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

keras = pytest.importorskip("keras")
pytest.importorskip("tensorflow")

from conftest import QUICK_BENCH, tiny_recipe  # noqa: E402
from edgeheads.cli.prune_report import notes, print_report  # noqa: E402
from edgeheads.compression.macs import count_macs  # noqa: E402
from edgeheads.compression.prune.alone import LabelledArrays, prune_alone  # noqa: E402
from edgeheads.compression.prune.job import PruneJob, run  # noqa: E402
from edgeheads.compression.prune.report import PruneReport, Stage, measure_files  # noqa: E402
from edgeheads.compression.prune.run import prune_with_recipe  # noqa: E402
from edgeheads.compression.prune.sparsity import FileSize, layer_sparsity  # noqa: E402
from edgeheads.convert import convert  # noqa: E402
from edgeheads.errors import EdgeheadsError  # noqa: E402
from edgeheads.progress import SilentProgress  # noqa: E402
from edgeheads.recipe import PruneSection  # noqa: E402

L = keras.layers
SMALL = {"rounds": 2, "recover_steps": 2, "gradient_batches": 2}


def recipe(**prune: Any) -> Any:
    changes = {f"prune.{name}": value for name, value in {**SMALL, **prune}.items()}
    # What a second graph is trained for must not get in the way of a pruned one.
    return tiny_recipe(**{"training.ema_decay": 0.9, "export.precisions": ["float32"], **changes})


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pruned")
    return convert(recipe(target="macs=0.7"), folder / "run", bench_settings=QUICK_BENCH).folder


@pytest.mark.slow
def test_convert_prunes_what_it_trains(trained: Path) -> None:
    report = json.loads((trained / "pruning.json").read_text())
    assert [stage["title"] for stage in report["stages"]] == [
        "original",
        "round 1, pruned",
        "round 1, recovered",
        "round 2, pruned",
        "round 2, recovered",
    ]
    before, after = (
        count_macs(keras.saving.load_model(trained / name))
        for name in ("model.keras", "pruned.keras")
    )
    assert report["stages"][0]["macs"] == before
    assert report["stages"][-1]["macs"] == after <= 0.7 * before
    assert set(report["stages"][-1]["ratio"]) == {"float32", "int8"}
    assert report["stages"][-1]["files"]["int8"]["zipped"] > 0
    small, large = (trained / "float32" / "model.tflite"), (trained / "pruned.keras")
    assert small.stat().st_size < large.stat().st_size


@pytest.mark.slow
def test_zeros_alone_and_what_they_save(trained: Path, tmp_path: Path) -> None:
    zeros = recipe(sparsity=0.5, pattern="2:4", recover_steps=4)
    result = prune_with_recipe(trained / "model.keras", zeros, tmp_path, bench_settings=QUICK_BENCH)
    model = keras.saving.load_model(result.model_path)
    assert sum(one.zeros for one in layer_sparsity(model)) > 0
    first, last = result.report.stages
    assert last.sparsity > first.sparsity == 0
    assert last.macs == first.macs
    assert last.files["float32"].raw == pytest.approx(first.files["float32"].raw, rel=0.01)
    assert last.files["float32"].zipped < 0.9 * first.files["float32"].zipped


@pytest.mark.slow
def test_a_target_out_of_reach_leaves_everything_as_it_was(trained: Path, tmp_path: Path) -> None:
    content = (trained / "model.keras").read_bytes()
    with pytest.raises(EdgeheadsError, match=r"target macs=0.05 cannot be reached"):
        prune_with_recipe(trained / "model.keras", recipe(target="macs=0.05"), tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert (trained / "model.keras").read_bytes() == content
    with pytest.raises(EdgeheadsError, match=r"would replace the model that is pruned"):
        prune_with_recipe(trained / "model.keras", recipe(target="macs=0.5"), trained)
    with pytest.raises(EdgeheadsError, match=r"say what to remove: a target such as macs=0.5"):
        prune_with_recipe(trained / "model.keras", recipe(), tmp_path)


def classifier(activation: str | None = None) -> Any:
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 3))
    x = L.ReLU()(L.Conv2D(32, 3, strides=2, name="a")(image))
    x = L.GlobalAveragePooling2D()(L.ReLU()(L.Conv2D(32, 3, name="b")(x)))
    return keras.Model(image, L.Dense(2, activation=activation)(x))


def arrays(path: Path, **others: Any) -> str:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 60)
    x = rng.normal(size=(60, 8, 8, 3)) * 0.1 + y[:, None, None, None]
    np.savez(path, **{"x": x, "y": y, **others})
    return str(path)


@pytest.mark.slow
def test_any_model_with_arrays_recovers(tmp_path: Path) -> None:
    classifier("softmax").save(tmp_path / "net.keras")
    section = {"target": "macs=0.4", "sparsity": 0.5, "recover_steps": 40, "recover_rate": 10}
    # The model was never trained: as a teacher it would keep the pruned one from learning.
    section["distill"] = 0
    result = prune_alone(
        tmp_path / "net.keras",
        tmp_path / "out",
        section,
        data=arrays(tmp_path / "data.npz"),
        bench_settings=QUICK_BENCH,
    )
    last = result.report.stages[-1]
    assert last.title == "round 1, recovered"
    assert last.metrics["accuracy"] > 0.9
    assert last.sparsity == pytest.approx(0.5, abs=0.02)
    assert last.macs <= 0.4 * result.report.stages[0].macs
    assert not (result.folder / ".model-draft.keras").exists()


def test_any_model_without_data_is_only_pruned(tmp_path: Path) -> None:
    classifier().save(tmp_path / "net.keras")
    file = tmp_path / "net.keras"
    result = prune_alone(
        file, tmp_path / "out", {"target": "parameters=0.5"}, bench_settings=QUICK_BENCH
    )
    assert [stage.title for stage in result.report.stages] == ["original", "round 1, pruned"]
    with pytest.raises(EdgeheadsError, match=r"taylor needs labelled data: give --data FILE.npz"):
        prune_alone(file, tmp_path / "out", {"target": "macs=0.5", "importance": "taylor"})
    with pytest.raises(EdgeheadsError, match=r"there is no data to train on"):
        prune_alone(file, tmp_path / "out", {"sparsity": 0.5})


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ({"x": np.zeros((60, 4, 4, 3))}, r"x of shape \(8, 8, 3\), .* received x \(60, 4, 4, 3\)"),
        ({"y": np.full(60, 7)}, r"has classes 7 to 7, the model knows 0 to 1"),
        ({"y": np.zeros(3, int)}, r"received x \(60, 8, 8, 3\) and y \(3,\) of int"),
        ({"y": np.array(["a"] * 60, object)}, r"cannot be read"),
    ],
)
def test_arrays_that_do_not_fit(tmp_path: Path, others: dict[str, Any], message: str) -> None:
    with pytest.raises(EdgeheadsError, match=message):
        LabelledArrays.read(Path(arrays(tmp_path / "data.npz", **others)), classifier())


def test_the_report_says_so_where_nothing_was_bought() -> None:
    stages = [
        Stage("original", 100, 10, 0.0, {}, {"int8": FileSize(9, 8)}, {"int8": 1.0}, {"int8": 1.0}),
        Stage("pruned", 50, 5, 0.0, {}, {"int8": FileSize(5, 4)}, {"int8": 0.99}, {"int8": 0.99}),
    ]
    lines = notes(PruneReport("macs=0.5", stages), None)
    assert lines[0].startswith("Bought: 0.50x of the MACs, 0.50x of the parameters, int8 1.01x as")
    assert lines[1] == ("Pruning bought no milliseconds as int8: p50 is 0.99x of the original's")
    stages[1].ratio["int8"] = 0.6
    assert len(notes(PruneReport("macs=0.5", stages), None)) == 1


def test_made_up_timings_through_the_whole_report(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    times = {"float32": (2.0, 1.98), "int8": (1.0, 0.6)}

    def compare(session: Any, paths: dict[str, Path], settings: Any) -> dict[str, Any]:
        precision = next(iter(paths.values())).name.split("-")[0]
        first = times[precision][0]
        return {
            name: {
                "latency_ms": {"p50": p50},
                "ratio_to_first": p50 / first,
                "unstable": precision == "int8",
                "repeats": [{"runtime": {"name": "LiteRT", "version": "2.0"}}],
            }
            for name, p50 in zip(paths, times[precision], strict=True)
        }

    monkeypatch.setattr("edgeheads.compression.prune.report.compare", compare)
    model = classifier()
    report = PruneReport("macs=0.9")
    stages = [(Stage.of(title, model), model) for title in ("original", "round 1, pruned")]
    report.stages = [stage for stage, _ in stages]
    session = SimpleNamespace(profile=SimpleNamespace(name="a board"))
    measure_files(report, stages, tuple(times), lambda *_: b"file", session)  # type: ignore[arg-type]
    assert report.bought_nothing() == ["float32"]
    assert stages[1][0].ratio == {"float32": 0.99, "int8": 0.6}
    print_report(report, None)
    said = capsys.readouterr().out
    assert "Pruning, macs=0.9, timed on a board" in " ".join(said.split())
    assert "Pruning bought no milliseconds as float32: p50 is 0.99x of the original's\n" in said
    assert "no milliseconds as int8" not in said
    assert "p50 varied between rounds (int8)" in said


def test_gradients_are_of_all_classes_of_a_sorted_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    classifier("softmax").save(tmp_path / "net.keras")
    y = np.sort(np.arange(60) % 2)
    seen: list[Any] = []

    def stop(loss: Any, batches: Any) -> Any:
        seen.extend(targets for _, targets in batches)
        raise EdgeheadsError("enough")

    monkeypatch.setattr("edgeheads.compression.prune.alone.loss_gradients", stop)
    section = {"target": "macs=0.5", "gradient_batches": 2}
    with pytest.raises(EdgeheadsError, match="enough"):
        prune_alone(
            tmp_path / "net.keras",
            tmp_path / "out",
            section,
            data=arrays(tmp_path / "data.npz", y=y),
        )
    assert [set(targets) for targets in seen] == [{0, 1}, {0, 1}]


def two_inputs() -> Any:
    images = [keras.Input((8, 8, 3)), keras.Input((8, 8, 3))]
    both = [L.Conv2D(16, 3, name=f"conv_{index}")(one) for index, one in enumerate(images)]
    return keras.Model(images, L.Conv2D(2, 1)(L.Concatenate()(both)))


def test_a_model_with_two_inputs_is_pruned_and_not_timed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    two_inputs().save(tmp_path / "net.keras")
    result = prune_alone(tmp_path / "net.keras", tmp_path / "out", {"target": "macs=0.5"})
    first, last = result.report.stages
    assert last.macs <= 0.5 * first.macs
    assert set(result.report.refused) == {"float32", "int8"}
    print_report(result.report, None)
    assert "Not measured as float32, int8: a file is made of a model with one input" in " ".join(
        capsys.readouterr().out.split()
    )
    with pytest.raises(EdgeheadsError, match=r"size and latency do not"):
        prune_alone(tmp_path / "net.keras", tmp_path / "out", {"target": "size=0.5"})


def test_zeros_in_a_layer_that_is_called_twice() -> None:
    image = keras.Input((8, 8, 3))
    shared = L.Conv2D(8, 3, padding="same", name="shared")
    model = keras.Model(image, L.Conv2D(2, 1)(shared(shared(L.Conv2D(8, 1)(image)))))
    trained = []
    job = PruneJob(
        PruneSection(sparsity=0.5),
        precisions=(),
        recover=lambda pruned, last: trained.append((pruned, last)),
    )
    found, report = run(model, job, SimpleNamespace(), SilentProgress())  # type: ignore[arg-type]
    assert trained == [(found, True)]
    assert [stage.title for stage in report.stages] == ["original", "round 1, recovered"]
    assert found.get_layer("shared") is not shared
    for old, new in zip(model.get_weights(), found.get_weights(), strict=True):
        np.testing.assert_array_equal(new, old)


@pytest.mark.slow
def test_a_model_in_16_bits_recovers_and_becomes_files(tmp_path: Path) -> None:
    usual = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = classifier("softmax")
    finally:
        keras.config.set_dtype_policy(usual)
    model.save(tmp_path / "net.keras")
    data = arrays(tmp_path / "data.npz")
    # Rounded probabilities do not add up to one.
    assert not LabelledArrays.read(Path(data), model).logits
    result = prune_alone(
        tmp_path / "net.keras",
        tmp_path / "out",
        {"target": "macs=0.5", "recover_steps": 2},
        data=data,
        bench_settings=QUICK_BENCH,
    )
    assert set(result.report.stages[-1].ratio) == {"float32", "int8"}
    again = keras.saving.load_model(result.model_path)
    assert again.get_layer("a").compute_dtype == "bfloat16"


def test_the_report_says_so_where_the_last_measurement_misses_the_target() -> None:
    stages = [
        Stage("original", 100, 10, 0.0, {}, {"int8": FileSize(9, 8)}, {"int8": 2.0}, {"int8": 1.0}),
        Stage("pruned", 50, 5, 0.0, {}, {"int8": FileSize(5, 4)}, {"int8": 1.3}, {"int8": 0.65}),
    ]
    for target, missed in (
        ("latency=0.7", None),
        ("latency=0.6", 0.65),
        ("latency=1.2ms", 0.65),
        ("size=5B", None),
        ("size=0.5", 5 / 9),
        ("macs=0.5", None),
        ("parameters=4", 0.5),
    ):
        report = PruneReport(target, stages, precision="int8")
        assert report.missed() == (missed and pytest.approx(missed)), target
        said = [line for line in notes(report, None) if line.startswith("Target missed")]
        assert bool(said) == bool(missed)
    assert PruneReport("latency=0.6", stages, precision="float32").missed() is None
