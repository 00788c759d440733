"""How operations get to Redis and replies back, on one connection for all threads, event loops and background work of a process.

A `courier` takes `letters` into its `mailbag`; whoever holds the wire makes a `carriage` of the next batch. The `porter` is the thread that
connects and carries for those who can't, by `dial`, `line` and `resp`. The `breaker` says when nobody answers, `troubles` what errors mean,
and a `subscription` hears the news.
"""
