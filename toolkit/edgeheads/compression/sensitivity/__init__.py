"""What int8 costs each layer of a file."""
