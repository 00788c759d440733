"""Observers: each takes the engine's frozen events and tells one other system about them."""
