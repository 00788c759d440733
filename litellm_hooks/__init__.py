"""LiteLLM router strategy and callbacks on the same engine: they arrive with a later release."""
