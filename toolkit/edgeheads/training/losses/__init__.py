"""Training losses, on `keras.ops`: one file per task."""
