"""Requests that no provider could answer, kept until they can be asked again: the letter, what it is sealed in, and where it lies.

Rules of this package: what `put` returned for is on a disk, or with Redis (DESIGN I12); an answer is written once by its idempotency key;
whoever is killed at any instant loses and doubles nothing. Nothing here asks a provider: that is the replayer's.
"""
