"""LiteLLM's words and ours: what `import-litellm` goes by.

Rules of this file: data only. How LangChain's words for providers are spelled by LiteLLM is in `identity`, and only read from there.
"""

from __future__ import annotations

from langchain_resilient.identity import LITELLM_NAMES

SAME = (
    "openai", "anthropic", "ollama", "groq", "deepseek", "xai", "cohere", "perplexity", "openrouter", "huggingface", "azure_ai",
)  # fmt: skip
"""Providers whom LangChain and LiteLLM call the same."""
COMPATIBLE = ("hosted_vllm", "openai_like", "custom_openai", "lm_studio", "litellm_proxy", "llamafile")
"""LiteLLM's words for servers that speak OpenAI's wire."""
WORDS: dict[str, str] = {
    **{word: word for word in SAME},
    **dict.fromkeys(COMPATIBLE, "openai"),
    **{name: word for word, name in reversed(LITELLM_NAMES.items())},  # of several the first
    "bedrock": "bedrock_converse",
    "ollama_chat": "ollama",
    "cohere_chat": "cohere",
    "vertex_ai_beta": "google_vertexai",
}
"""LangChain's word for a provider, by LiteLLM's; where there are several, that of the chat client."""
GUESSES = (
    ("gpt-", "openai"), ("chatgpt-", "openai"), ("o1", "openai"), ("o3", "openai"), ("o4", "openai"), ("claude-", "anthropic"),
    ("gemini-", "vertex_ai"), ("command-", "cohere"),
)  # fmt: skip
"""Whose a model is that stands without its provider, by how its name begins (LiteLLM looks it up in its table of models)."""
OF_ANOTHER_CLIENT = {("google_vertexai", "claude"): "google_anthropic_vertex"}
"""Models that have a client of their own, by LangChain's word and how their names begin."""
ROUTES = {"bedrock": ("converse/", "invoke/")}
"""What LiteLLM lets stand before a model's name, and is no part of it."""
CHAT_MODES = (None, "chat", "responses")
"""`model_info.mode` of what a chat model can ask."""

# --------------------------------------------------------------------------------------------------- a client's arguments
ENDPOINTS = {
    "azure_openai": "azure_endpoint", "azure_ai": "endpoint", "bedrock_converse": "endpoint_url", "ibm": "url",
}  # fmt: skip
"""What a client calls its address, where that is not `base_url`."""
KEYS: dict[str, str | None] = {
    "azure_ai": "credential", "huggingface": "huggingfacehub_api_token", "ibm": "apikey", "ollama": None, "bedrock_converse": None,
    "google_vertexai": None, "google_anthropic_vertex": None,
}  # fmt: skip
"""What a client calls its key, where that is not `api_key`; None: it takes none."""
ASKED_OF_THE_ENVIRONMENT = {
    "azure": {"azure_endpoint": "AZURE_API_BASE", "api_key": "AZURE_API_KEY", "api_version": "AZURE_API_VERSION"},
    "nvidia_nim": {"api_key": "NVIDIA_NIM_API_KEY"},
}
"""The variables that LiteLLM reads for what is not in its file, by its word, where LangChain's client reads another or none."""
ARGUMENTS = {"temperature": "number", "top_p": "share"}
"""What every client takes, and as what."""
OF_OPENAI = {
    "seed": "whole", "presence_penalty": "any number", "frequency_penalty": "any number", "logprobs": "yes or no",
    "top_logprobs": "whole", "reasoning_effort": "text", "verbosity": "text", "service_tier": "text", "organization": "text",
    "stop": "words", "extra_body": "mapping", "extra_headers": "texts",
}  # fmt: skip
OF_VERTEX = {"top_k": "count", "vertex_project": "text", "vertex_location": "text"}
ARGUMENTS_OF = {
    "openai": OF_OPENAI,
    "azure_openai": {**OF_OPENAI, "api_version": "text", "azure_ad_token": "secret"},
    "deepseek": OF_OPENAI, "xai": OF_OPENAI, "together": OF_OPENAI,
    "anthropic": {"top_k": "count", "stop": "words", "thinking": "mapping", "extra_headers": "texts"},
    "ollama": {
        "top_k": "count", "stop": "words", "seed": "whole", "num_ctx": "count", "num_gpu": "whole", "num_thread": "count",
        "repeat_penalty": "number", "keep_alive": "text",
    },
    "google_genai": {"top_k": "count"}, "google_vertexai": OF_VERTEX, "google_anthropic_vertex": OF_VERTEX,
    "bedrock_converse": {
        "stop": "words", "aws_region_name": "text", "aws_profile_name": "text", "aws_access_key_id": "secret",
        "aws_secret_access_key": "secret", "aws_session_token": "secret",
    },
}  # fmt: skip
"""What a client takes beside, by LangChain's word."""
RENAMED = {
    "extra_headers": "default_headers", "vertex_project": "project", "vertex_location": "location", "aws_region_name": "region_name",
    "aws_profile_name": "credentials_profile_name",
}  # fmt: skip
"""What a client calls what LiteLLM calls otherwise."""

# --------------------------------------------------------------------------------------------------------------- routing
SHUFFLE = "simple-shuffle"
ROUTINGS = {"latency-based-routing": "latency", "cost-based-routing": "cost"}
"""Our word for a `routing_strategy`, but for simple-shuffle, which depends on what is shuffled."""
WEIGHTS = ("weight", "rpm", "tpm")
"""What simple-shuffle weighs by: the first that any deployment has."""

# -------------------------------------------------------------------------------------------------------- what is left out
_TABLE = "who may ask for what is the proxy's to say"
_LANGCHAIN = "LangChain has callbacks of its own"
_CACHE = "answers are cached by LangChain's own cache (`set_llm_cache`)"
_RETRIES = "retries are one number, `retry.max_retries`, and what is retried follows from the kind of error"
OTHERWISE = "no setting here does that"
WHY = {
    "general_settings": "these are the proxy's own",
    "guardrails": "they are the proxy's: use LangChain's middleware",
    "environment_variables": "variables are set where the process is started",
    "mcp_servers": "tools are bound to the model by whoever calls it",
    "credential_list": "secrets come from the environment",
    "litellm_credential_name": "secrets come from the environment: set the client's own in `model_kwargs`",
    "callbacks": f'{_LANGCHAIN}; for Prometheus write `observers: ["prometheus"]`',
    "success_callback": f'{_LANGCHAIN}; for Prometheus write `observers: ["prometheus"]`',
    "failure_callback": _LANGCHAIN,
    "service_callback": _LANGCHAIN,
    "cache": _CACHE,
    "cache_params": _CACHE,
    "cache_responses": _CACHE,
    "cache_kwargs": _CACHE,
    "drop_params": "clients are only given what they take",
    "modify_params": "conversations are converted for each provider by themselves",
    "context_window_fallbacks": "a prompt too large for one provider goes to the others by itself, the largest first",
    "content_policy_fallbacks": "what a provider refuses for its content is asked of nobody else",
    "enable_pre_call_checks": "limits and context windows (`context_window`) are always looked at",
    "optional_pre_call_checks": "limits are always kept, and affinity has no setting here",
    "disable_cooldowns": "circuits can't be switched off: raise `circuit.failure_threshold`",
    "allowed_fails_policy": "failures are weighed by their kind, without a setting",
    "retry_policy": _RETRIES,
    "model_group_retry_policy": _RETRIES,
    "max_retries": "the clients' own retries are off: `retry.max_retries` is for all of them",
    "num_retries": _RETRIES,
    "retry_after": "the backoff is `retry.base_delay` and `retry.max_delay`",
    "max_fallbacks": "every provider in the list may be asked",
    "enable_weighted_failover": "who failed is never the next to be asked",
    "routing_strategy_args": "routing has no arguments here",
    "routing_groups": "there is one routing for all providers",
    "tags": "there are no tags here: make a model for each set of providers",
    "enable_tag_filtering": "there are no tags here: make a model for each set of providers",
    "provider_budget_config": "write `limits: {usd_per_day: …}` and a `price` at each provider",
    "max_budget": "write `limits: {usd_per_day: …}` and a `price`",
    "budget_duration": "write `limits: {usd_per_day: …}` and a `price`",
    "set_verbose": "logs are set up with Python's `logging`",
    "json_logs": "logs are set up with Python's `logging`",
    "debug_level": "logs are set up with Python's `logging`",
    "model_group_alias": "it is a name, not a deployment: --group takes it as well",
    "access_groups": _TABLE,
    "team_id": _TABLE,
    "base_model": "a model is known by its own name",
    "mock_response": "use `langchain_resilient.testing`",
}  # fmt: skip
"""Why a key of LiteLLM's is not carried, where there is more to say than `OTHERWISE`."""
