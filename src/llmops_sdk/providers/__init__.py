"""Remote protocols: one module each for bytes (no input, no output of their own), and the leaf that asks."""
