"""Training on several devices or machines, through Keras' own distribution."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import keras

from edgeheads.errors import EdgeheadsError

__all__ = ["Distribution", "distribute"]

_Context = Callable[[], AbstractContextManager[object]]


@dataclass(frozen=True)
class Distribution:
    """How a batch is divided. The default: it is not.

    Attributes:
        title: for people.
        devices: how many share a batch.
        replicas: how many of them compute a loss of their own, whose gradients are added up; 1
            where one computation spans all devices.
        workers: how many processes there are.
        chief: this process is the one that writes files.
        building: within it the trained variables are made.
        fitting: within it Keras' loop runs.
        apart: within it, inside the loop, a model runs on one device.
    """

    title: str = "one device"
    devices: int = 1
    replicas: int = 1
    workers: int = 1
    chief: bool = True
    building: _Context = nullcontext
    fitting: _Context = nullcontext
    apart: _Context = nullcontext

    def check(self, batch_size: int, clip_norm: float) -> None:
        """Raise EdgeheadsError where a training cannot be divided so.

        Args:
            batch_size: of all devices together.
            clip_norm: see `Optimization`.
        """
        if batch_size % self.devices:
            raise EdgeheadsError(
                f"training.batch_size {batch_size} cannot be divided among {self.devices} devices; "
                f"set a multiple of {self.devices}"
            )
        if clip_norm and self.replicas > 1:
            raise EdgeheadsError(
                f"training.clip_norm {clip_norm:g} is of the whole batch's gradient, which no "
                "replica of TensorFlow's has; set it to 0, or use KERAS_BACKEND=jax"
            )


def distribute() -> Distribution:
    """Return the distribution over the devices there are. Call it before anything is computed.

    On JAX, `keras.distribution.DataParallel` over all devices. On TensorFlow, one process per
    machine where the environment variable TF_CONFIG lists several workers, and
    `tf.distribute.MirroredStrategy` over the local devices where not. There, each replica
    normalizes its own part of the batch and takes means over its own valid labels, so that
    batch norm's statistics, and losses that mask pixels, differ a little from a single process'.

    Raises:
        EdgeheadsError: the backend has no distribution, or TF_CONFIG cannot be read.
    """
    backend = keras.backend.backend()
    if backend == "jax":
        return _data_parallel()
    if backend == "tensorflow":
        return _strategy()
    raise EdgeheadsError(
        f"--distribute works on the Keras backends tensorflow and jax, the active one is {backend};"
        " set KERAS_BACKEND"
    )


def _data_parallel() -> Distribution:
    devices = keras.distribution.list_devices()
    parallel = keras.distribution.DataParallel(devices=devices, auto_shard_dataset=False)

    @contextmanager
    def apart() -> Iterator[None]:
        keras.distribution.set_distribution(None)
        try:
            yield
        finally:
            keras.distribution.set_distribution(parallel)

    return Distribution(
        f"{len(devices)} JAX devices",
        devices=len(devices),
        building=parallel.scope,
        fitting=parallel.scope,
        apart=apart,
    )


def _strategy() -> Distribution:
    import tensorflow as tf

    try:
        config = json.loads(os.environ.get("TF_CONFIG") or "{}")
        workers, index = config.get("cluster", {}).get("worker", []), config.get("task", {})
    except (ValueError, AttributeError) as error:
        raise EdgeheadsError(
            f"the environment variable TF_CONFIG is no JSON mapping ({error}); expected "
            '{"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}}'
        ) from None
    if len(workers) > 1:
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
        title = f"worker {index.get('index', 0)} of {len(workers)}"
    else:
        strategy = tf.distribute.MirroredStrategy()
        title = f"{strategy.num_replicas_in_sync} local devices"
    return Distribution(
        title,
        devices=strategy.num_replicas_in_sync,
        replicas=strategy.num_replicas_in_sync,
        workers=max(1, len(workers)),
        chief=len(workers) < 2 or index.get("index", 0) == 0,
        building=strategy.scope,
    )
