"""A small project whose prompts the tests version, edit and move."""
