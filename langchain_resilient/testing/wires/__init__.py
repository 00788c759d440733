"""Wire formats of LLM providers, and what can go wrong on them. Private to `langchain_resilient.testing.fault_server`."""
