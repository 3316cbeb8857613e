"""What the measuring program can be asked."""

from __future__ import annotations

import math
from typing import Any

from edgeheads.ondevice.failure import bad_request
from edgeheads.ondevice.interpreter import DELEGATES, RUNTIMES

__all__ = ["checked_request"]

# Every key an action accepts, with its default; the default's type is the type it must have.
# A key whose default is "" must be given.
_MODEL_KEYS: dict[str, Any] = {"model": "", "threads": 1, "delegate": "xnnpack"}
_INPUT_KEYS: dict[str, Any] = {"seed": 0, "input_low": 0.0, "input_high": 1.0}
_REQUEST_KEYS: dict[str, dict[str, Any]] = {
    "describe": {},
    "inspect": _MODEL_KEYS,
    "bench": {
        **_MODEL_KEYS,
        **_INPUT_KEYS,
        "warmup_runs": 10,
        "min_warmup_seconds": 0.5,
        "runs": 128,
        "min_seconds": 0.0,
        "max_seconds": 10.0,
        "sample_seconds": 1.0,
        # A contract's image input; {} leaves the preprocessing out.
        "image": {},
    },
    "profile": {**_MODEL_KEYS, **_INPUT_KEYS, "runs": 30, "rounds": 3},
    "predict": {**_MODEL_KEYS, "inputs": "", "outputs": ""},
}

# Lowest values; of the others it is 0.
_LOWEST = {
    "threads": 1,
    "runs": 1,
    "rounds": 1,
    "input_low": -math.inf,
    "input_high": -math.inf,
}
_CHOICES = {
    "runtime": ["any", *(runtime[0] for runtime in RUNTIMES)],
    "delegate": ["xnnpack", *DELEGATES, "none"],
}


def checked_request(received: Any) -> dict[str, Any]:
    """Return the request with every default filled in."""
    action = received.get("action") if isinstance(received, dict) else None
    if not isinstance(action, str) or action not in _REQUEST_KEYS:
        raise bad_request(f'an object with "action" one of {sorted(_REQUEST_KEYS)}', action)
    defaults = {"action": "", "runtime": "any", **_REQUEST_KEYS[action]}
    unknown = sorted(set(received) - set(defaults))
    if unknown:
        raise bad_request(f"only the keys {sorted(defaults)} with {action}", unknown)
    request = {**defaults, **received}
    for key, default in defaults.items():
        _check_value(key, request[key], default)
    if "input_low" in request and not request["input_low"] < request["input_high"]:
        raise bad_request(
            "input_low below input_high", (request["input_low"], request["input_high"])
        )
    return request


def _check_value(key: str, value: Any, default: Any) -> None:
    if isinstance(default, dict):
        if not isinstance(value, dict):
            raise bad_request(f"{key} as an object", value)
        return
    if isinstance(default, str):
        if not isinstance(value, str) or not value:
            raise bad_request(f"{key} as a text that is not empty", value)
        if value not in _CHOICES.get(key, [value]):
            raise bad_request(f"{key} one of {_CHOICES[key]}", value)
        return
    is_integer = isinstance(default, int)
    lowest = _LOWEST.get(key, 0)
    if isinstance(value, bool) or not isinstance(value, int if is_integer else (int, float)):
        raise bad_request(f"{key} as {'an integer' if is_integer else 'a number'}", value)
    if not math.isfinite(value) or value < lowest:
        raise bad_request(f"{key} finite and at least {lowest}", value)
