"""The tests mirror the packages; what several of them share is imported as `tests.<module>`."""
