"""What was measured of many Bundles, in one table. NumPy and an interpreter are enough."""
