"""The engine: what happens between a request and its answer, free of LangChain and LiteLLM.

Read it from the bottom up: the pure mechanisms (`classify`, `circuit`, `quota`, `latency`, `backoff`, `budget`, `routing`), the
settings of one model (`policy`), what a plan may ask for (`effects`), the story of a request (`plan`, `stream`), where shared state
lives (`store`) and the two drivers that perform the story (`drive`). A module imports only from lower lines of that list.
"""
