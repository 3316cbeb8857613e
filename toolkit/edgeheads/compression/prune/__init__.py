"""Pruning: zeros for a smaller download (magnitude), and fewer channels for a faster network."""
