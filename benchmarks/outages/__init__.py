"""The parts of `benchmarks/outage.py`.

Who asks is `traffic`, who answers `stage`, what goes wrong `faults`, who is compared `contenders` and `litellm_router`; one run is `cell`,
many runs are `crowd`, and what they come to is `figures`, `promises`, `report` and `chart`.
"""
