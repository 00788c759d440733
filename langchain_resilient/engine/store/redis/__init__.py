"""State that many processes share, on Redis or Valkey.

`store` asks and reports, `mirror` follows what Redis says and decides alone while it is away, `wire` writes operations down and reads what
comes back, `lua` holds the scripts that decide, `post` carries it all. `asking` puts an admission together, `lines` are the places where requests
wait, `debts` what has to be given back. `hearers` are told what changes in the fleet, `exchange` counts latencies with it, in `sketches`;
`tenants` has the limits of users, `fleet` what both have in common.
"""
