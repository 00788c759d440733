"""Where shared state lives: `memory` keeps it in this process, `redis` for many, `opening` finds the one that a URL means.

The `Store` protocol is in `effects`. `state` and `account` are what both keep of a provider and of a credential, `tenants` what users have taken.
`turn` lets one thread at a time in, `forks` tells those who must know of it that this is a new process.
"""
