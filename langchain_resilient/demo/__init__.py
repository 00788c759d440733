"""2 PM in one minute: real clients, fake providers that fail on schedule, and three systems side by side.

    afternoon    what the providers do, and when                  (values)
    traffic      who asks what, and when                          (values)
    stage        three providers on loopback                      FaultServer
    contenders   a bare client, `with_fallbacks`, and ours        LangChain's own clients, over HTTP
    ledger       what became of every question                    (arithmetic)
    play         plays it
    scene        what there is to see at one moment               (values)
    live, plain  shows it as it goes: frames, or lines            frame, page, watching
    summary      what it came to, as table, text or values        findings, words
    chart        the same as a picture                            matplotlib

Nothing in here tells a model what is about to happen: the afternoon is told to the servers alone. `langchain-resilient demo` runs it.
"""
