"""The HTTP face of the house."""
