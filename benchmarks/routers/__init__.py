"""The parts of `benchmarks/litellm_router.py`, which plays on the stage of `outages`.

Who is compared is `contenders`, what goes wrong `faults`; a run's process is `cell`, its providers' `stage`; what a healthy call costs is
`overhead`, and what it all comes to `gates` and `report`.
"""
