"""The program that is copied to a device and runs there on its own."""
