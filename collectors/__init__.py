"""The eyes of the house: sources that turn the world into frames of our tables."""
