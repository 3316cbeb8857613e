"""From Keras to the formats that devices run."""
