"""State that many processes share, on Redis or Valkey.

`store` asks and reports, `wire` writes that down and reads what comes back, `lua` holds the scripts that decide, `post` carries it all. `hearers`
are told what changes in the fleet, `sketches` hold what it knows together of latency, `tenants` the limits of users.
"""
