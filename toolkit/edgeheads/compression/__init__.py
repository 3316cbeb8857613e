"""Making a trained Keras model smaller and faster, and measuring what that cost."""
