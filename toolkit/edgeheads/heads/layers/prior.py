"""What a head says of rare things before it has learned anything."""

from __future__ import annotations

import math

import keras

__all__ = ["prior_bias"]


def prior_bias(probability: float) -> keras.initializers.Initializer:
    """Return the bias of logits that begin at a probability, in (0, 1).

    From one half, learning that most of an image holds none would drown everything else at first
    (Lin et al. 2017, "Focal Loss for Dense Object Detection").
    """
    return keras.initializers.Constant(math.log(probability / (1 - probability)))
