"""What in a graph is hostile to int8 or to a device: found by rules, and rewritten where it can."""
