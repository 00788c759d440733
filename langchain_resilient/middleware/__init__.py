"""`ResilientModelMiddleware`: the engine around the model calls of a LangChain agent.

Rules of this package: the agent's own handler makes every attempt, with the provider's own model in the request, so that middleware further
in (prompt caching, say) sees what it would see without us; a request that needs no change goes on as it came. No races, no hedges, no
continuations: tokens reach the caller through callbacks while the handler runs, so nothing can be taken back, and once one was shown nobody
else is asked. What the graph says (`GraphBubbleUp`, cancellation) passes untouched, and says nothing of a provider.

    wrapper     `ResilientModelMiddleware`: its settings, the engine of a call, the two colours
    attempts    one model call: its plan, which ends at the first failure after a shown token, and each attempt
    asked       an agent's request in each provider's own terms, and its handler's result as an answer
    shown       what the caller has seen of an attempt
    alone       the chat model's policy, for an agent: one attempt at a time, and what only an agent raises

It is the only package that imports `langchain`'s agents and LangGraph, and nothing else of ours imports it.
"""

from langchain_resilient.middleware.wrapper import ResilientModelMiddleware

__all__ = ["ResilientModelMiddleware"]
