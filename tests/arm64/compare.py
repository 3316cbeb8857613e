"""How an int8 file's outputs differ between x86 and aarch64 kernels, the latter emulated.

    python tests/arm64/compare.py FOLDER BUNDLE...

FOLDER is what tests/arm64/setup.sh made. Both sides are asked over the measuring program; the
emulated one through SSH, as a real device would be. No time is taken: it would mean nothing.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "links"))

from ssh_server import serve

from edgeheads.bundle import Bundle
from edgeheads.data.synthetic import SyntheticScenes
from edgeheads.device import DeviceProfile
from edgeheads.runtime import DeviceSession

SCENES = 8
CPUS = ("cortex-a72", "cortex-a76")


@dataclass(frozen=True)
class Difference:
    """Of one output, over all pictures: in quantization steps, of which there are 255."""

    output: str
    values: int
    equal: float
    p99_steps: float
    max_steps: int


@contextmanager
def emulated_session(folder: Path, cpu: str, delegate: str = "xnnpack") -> Iterator[DeviceSession]:
    """Open a session with the emulated userland, behind a real SSH server."""
    with tempfile.TemporaryDirectory() as work, serve(Path(work)) as server:
        profile = DeviceProfile(name="arm64", link="ssh", host=server.host, delegate=delegate)
        link = server.link(python=str(folder / f"python-{cpu}"))
        with DeviceSession(profile, link) as session:
            assert session.describe()["arch"] == "aarch64"
            yield session


def compare(bundle: Bundle, emulated: DeviceSession) -> list[Difference]:
    """Run the Bundle's golden images and some synthetic scenes on both."""
    spec = bundle.contract.image
    height, width = spec.tensor.shape[1:3]
    scenes = SyntheticScenes(SCENES, (height, width), seed=7)
    images = [*bundle.golden()["images"], *(scenes[i].image for i in range(SCENES))]
    inputs = {spec.tensor.name: np.concatenate([spec.prepare(image) for image in images])}
    profile = DeviceProfile(delegate=emulated.profile.delegate)
    with DeviceSession(profile) as native:
        expected, native_report = native.predict_with_report(bundle.model_path, inputs)
    received, report = emulated.predict_with_report(bundle.model_path, inputs)
    assert report["delegated_nodes"] == native_report["delegated_nodes"]
    differences = []
    for name, values in expected.items():
        steps = np.abs(values.astype(np.int64) - received[name].astype(np.int64))
        differences.append(
            Difference(
                name,
                steps.size,
                float(np.mean(steps == 0)),
                float(np.percentile(steps, 99)),
                int(steps.max()),
            )
        )
    return differences


def main(folder: str, bundles: list[str]) -> None:
    """Print one line per output, as a Markdown table."""
    print("| processor | kernels | task | output | values | equal | 99 % within | at most |")
    print("|---|---|---|---|---|---|---|---|")
    for cpu, delegate in product(CPUS, ("xnnpack", "none")):
        with emulated_session(Path(folder), cpu, delegate) as emulated:
            for path in bundles:
                bundle = Bundle(Path(path))
                for one in compare(bundle, emulated):
                    print(
                        f"| {cpu} | {delegate} | {bundle.recipe['task']} | `{one.output}` "
                        f"| {one.values} | {one.equal:.2%} | {one.p99_steps:g} steps "
                        f"| {one.max_steps} steps |",
                        flush=True,
                    )


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
