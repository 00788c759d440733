"""Where shared state lives: the `Store` protocol is in `effects`, its in-process form in `memory`."""
