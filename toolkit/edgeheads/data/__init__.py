"""Labelled images: one sample type, one reader per format, and the renderer."""
