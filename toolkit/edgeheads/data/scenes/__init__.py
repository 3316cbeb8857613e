"""The renderer: ray casting, textures, random layouts, and the camera. NumPy only."""
