"""Training: batches, losses, and the loop around Keras' own."""
