"""LLMOps for the functions you already have."""
