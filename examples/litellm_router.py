"""LiteLLM's Router with one line more: it answers while either provider does, streams included.

Needs `pip install 'langchain-resilient[litellm]'`, OPENAI_API_KEY and ANTHROPIC_API_KEY.
"""

import os

from litellm import Router

import litellm_hooks


def deployment(group: str, model: str, key: str) -> dict[str, object]:
    """An entry of the Router's list; the id is its name in metrics and records."""
    return {
        "model_name": group,
        "litellm_params": {"model": model, "api_key": os.environ[key]},
        "model_info": {"id": group},
    }


router = Router(
    model_list=[
        deployment("chat", "openai/gpt-4.1", "OPENAI_API_KEY"),
        deployment("chat-spare", "anthropic/claude-sonnet-4-5", "ANTHROPIC_API_KEY"),
    ],
    fallbacks=[{"chat": ["chat-spare"]}],
)
litellm_hooks.install(router, timeouts={"first_token": 5.0, "idle": 10.0})

told: dict[str, object] = {}
messages = [{"role": "user", "content": "Why does a circuit breaker have a half-open state?"}]
for chunk in router.completion(model="chat", messages=messages, stream=True, metadata=told):
    print(chunk.choices[0].delta.content or "", end="", flush=True)

print(f"\n{told['resilience']}")
