"""Fewer bits for weights and activations: after training, and while training."""
