"""The Bundle: whole or not there, and never a file its manifest does not name."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeheads import bundle as bundle_module
from edgeheads.bundle import Bundle, BundleContent, write_atomically, write_bundle
from edgeheads.contract import Contract, ImageInput, TensorSpec
from edgeheads.errors import CheckFailedError, EdgeheadsError

MODEL = b"\x1c\x00\x00\x00TFL3" + bytes(range(100))


def content(model: bytes = MODEL, **changes: Any) -> BundleContent:
    spec = TensorSpec("image", (1, 8, 8, 3), "float32")
    values: dict[str, Any] = {
        "model": model,
        "task": "depth",
        "precision": "float32",
        "contract": Contract(
            ImageInput(spec, (1, 1, 1), (0, 0, 0)),
            (TensorSpec("depth", (1, 8, 8, 1), "float32"),),
            {},
        ),
        "recipe": {"seed": 0},
        "recipe_yaml": "seed: 0\n",
        "baseline": None,
        "golden": {"images": np.zeros((1, 8, 8, 3), np.uint8)},
        "tools": {"edgeheads": "0"},
    }
    return BundleContent(**{**values, **changes})


@pytest.fixture
def written(tmp_path: Path) -> Bundle:
    return write_bundle(tmp_path / "a" / "int8", content())


def test_what_was_written_is_read(written: Bundle) -> None:
    again = Bundle(written.folder)
    assert again.contract == content().contract
    assert (again.task, again.precision, again.recipe) == ("depth", "float32", {"seed": 0})
    assert again.model_path.read_bytes() == MODEL
    assert again.golden()["images"].shape == (1, 8, 8, 3)
    assert sorted(path.name for path in written.folder.iterdir()) == [
        "golden.npz",
        "labels.txt",
        "manifest.json",
        "model.tflite",
        "recipe.yaml",
    ]


def test_nothing_else_is_left_beside_it(written: Bundle) -> None:
    assert [path.name for path in written.folder.parent.iterdir()] == ["int8"]


def test_a_new_bundle_replaces_the_old_one_and_its_measurements(written: Bundle) -> None:
    written.save_measurement("benchmark", {"p50": 1})
    again = write_bundle(written.folder, content(MODEL + b"more"))
    assert again.sha256 != written.sha256
    assert again.read_measurement("benchmark") is None
    assert [path.name for path in written.folder.parent.iterdir()] == ["int8"]


@pytest.mark.parametrize("failing", ["write_bytes", "mkdtemp", "savez_compressed", "replace"])
def test_failure_while_writing_keeps_the_old_bundle(
    written: Bundle, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    target = {
        "write_bytes": (Path, "write_bytes"),
        "mkdtemp": (bundle_module.tempfile, "mkdtemp"),
        "savez_compressed": (np, "savez_compressed"),
        "replace": (Path, "replace"),
    }[failing]
    monkeypatch.setattr(*target, fail)
    with pytest.raises(EdgeheadsError, match=r"cannot write .*int8 \(No space left on device\)"):
        write_bundle(written.folder, content(MODEL + b"more"))
    monkeypatch.undo()
    assert Bundle(written.folder).sha256 == written.sha256
    assert [path.name for path in written.folder.parent.iterdir()] == ["int8"]


def test_interrupt_while_writing_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez_compressed", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_bundle(tmp_path / "int8", content())
    assert list(tmp_path.iterdir()) == []


def test_killed_writer_leaves_nothing_that_looks_whole(written: Bundle) -> None:
    """SIGKILL runs no cleanup: what is left must not pass for a Bundle, and the old one stays."""
    script = textwrap.dedent(
        f"""
        import sys, time
        sys.path[:0] = [{str(Path(__file__).parent)!r}]
        import numpy as np
        from test_bundle import MODEL, content
        from edgeheads.bundle import write_bundle
        def hang(*args, **kwargs):
            print("writing", flush=True)
            time.sleep(60)
        np.savez_compressed = hang
        write_bundle(__import__("pathlib").Path({str(written.folder)!r}), content(MODEL + b"x"))
        """
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"writing\n"
        os.kill(child.pid, signal.SIGKILL)
    assert Bundle(written.folder).sha256 == written.sha256
    for left in written.folder.parent.iterdir():
        if left != written.folder:
            with pytest.raises(EdgeheadsError, match="is not a Bundle"):
                Bundle(left)


def test_folder_that_is_no_bundle_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.txt").write_text("years")
    with pytest.raises(EdgeheadsError, match="exists and is not a Bundle; remove it, or choose"):
        write_bundle(tmp_path / "precious", content())
    assert (tmp_path / "precious" / "thesis.txt").read_text() == "years"


def test_manifest_of_another_program_makes_no_bundle(tmp_path: Path) -> None:
    """A browser extension has a manifest.json too."""
    (tmp_path / "extension").mkdir()
    (tmp_path / "extension" / "manifest.json").write_text('{"manifest_version": 3}')
    with pytest.raises(EdgeheadsError, match="exists and is not a Bundle"):
        write_bundle(tmp_path / "extension", content())
    assert [path.name for path in (tmp_path / "extension").iterdir()] == ["manifest.json"]


def test_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EdgeheadsError, match=r"cannot write .* choose another folder with --out"):
        write_bundle(tmp_path / "file" / "int8", content())


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (MODEL[:-1] + b"!", "is not the file this Bundle was made with: expected SHA-256"),
        (MODEL[:50], "is not the file this Bundle was made with"),
        (b"", "and is not a whole TFLite file; convert the model again"),
        (b"PK\x03\x04 something else", "and is not a whole TFLite file"),
    ],
)
def test_changed_model_is_refused(written: Bundle, damage: bytes, words: str) -> None:
    written.model_path.write_bytes(damage)
    with pytest.raises(CheckFailedError, match=words):
        Bundle(written.folder)


@pytest.mark.parametrize("name", ["golden.npz", "labels.txt", "recipe.yaml"])
def test_changed_or_missing_companion_is_refused(written: Bundle, name: str) -> None:
    (written.folder / name).write_bytes(b"other")
    with pytest.raises(CheckFailedError, match=f"{name} is not the file this Bundle was made with"):
        Bundle(written.folder)
    (written.folder / name).unlink()
    with pytest.raises(CheckFailedError, match=f"has no {name}"):
        Bundle(written.folder)


def change_manifest(bundle: Bundle, **changes: Any) -> None:
    path = bundle.folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_manifest_cannot_name_a_file_outside(written: Bundle) -> None:
    hashes = {**written.manifest["sha256"], "../outside": written.sha256}
    (written.folder.parent / "outside").write_bytes(MODEL)
    change_manifest(written, sha256=hashes)
    with pytest.raises(CheckFailedError, match=r"has no \.\./outside"):
        Bundle(written.folder)


def test_other_schema_version(written: Bundle) -> None:
    change_manifest(written, schema_version=99)
    with pytest.raises(EdgeheadsError, match="schema version 99, this edgeheads reads 1; install"):
        Bundle(written.folder)


@pytest.mark.parametrize("missing", ["contract", "sha256", "recipe"])
def test_manifest_without_a_part(written: Bundle, missing: str) -> None:
    manifest = json.loads((written.folder / "manifest.json").read_text())
    del manifest[missing]
    (written.folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(EdgeheadsError, match=f"KeyError: '{missing}'"):
        Bundle(written.folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "\x00"])
def test_manifest_that_is_none(written: Bundle, text: str) -> None:
    (written.folder / "manifest.json").write_text(text)
    with pytest.raises(EdgeheadsError, match="is not a manifest"):
        Bundle(written.folder)


def test_folder_without_manifest(tmp_path: Path) -> None:
    with pytest.raises(EdgeheadsError, match=r"is not a Bundle: it has no manifest\.json; make"):
        Bundle(tmp_path)


def test_measurement_names_the_file_it_measured(written: Bundle) -> None:
    path = written.save_measurement("benchmark", {"p50": 1.5})
    assert json.loads(path.read_text()) == {"model_sha256": written.sha256, "p50": 1.5}
    assert written.read_measurement("benchmark") == {"model_sha256": written.sha256, "p50": 1.5}


@pytest.mark.parametrize("text", ['{"model_sha256": "other", "p50": 1}', "{}", "[]", "{", ""])
def test_measurement_of_another_file_is_ignored(written: Bundle, text: str) -> None:
    (written.folder / "benchmark.json").write_text(text)
    assert written.read_measurement("benchmark") is None


def test_bundle_can_be_moved(written: Bundle, tmp_path: Path) -> None:
    target = tmp_path / "ein Ordner – ünïcode"
    shutil.move(written.folder, target)
    assert Bundle(target).sha256 == written.sha256


def test_failed_write_leaves_the_old_file_and_no_draft(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a.json", "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(tmp_path / "a.json", "\ud800")
    assert (tmp_path / "a.json").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
