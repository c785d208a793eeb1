"""The four decorators, thin, over one wrapper."""
