"""Timing a conversion: what it returns, and what it refuses."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from edgeheads.bench.convert_speed import convert_speed, measure, measure_apart
from edgeheads.errors import EdgeheadsError, RuntimeFailureError


def test_requests_that_cannot_work() -> None:
    with pytest.raises(EdgeheadsError, match="one of bare, file, bundle, received 'fast'"):
        measure("fast", "tiny", (32, 32), 4)
    found = CliRunner().invoke(convert_speed, ["--images", "1"])
    assert "at least 2, received '1'" in str(found.exception)


@pytest.mark.slow
def test_a_process_of_its_own_tells_time_and_memory() -> None:
    pytest.importorskip("tensorflow")
    found = measure_apart("bundle", "tiny", (32, 32), 4)
    assert found.keys() == {"seconds", "grown_mb"}
    assert 0 < found["seconds"] < 300
    assert found["grown_mb"] >= 0
    with pytest.raises(RuntimeFailureError, match="measuring bare ended with exit code 2"):
        measure_apart("bare", "tinny", (32, 32), 4)
