"""Measuring models against each other."""
