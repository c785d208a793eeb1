"""Models that wrap other models."""
