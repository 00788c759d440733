"""The parts of `fleet.py`: what the outage is `scene`, who takes part `workers`, and what it comes to `figures`."""
