"""README.md's first example, word for word: two providers, one question, and who answered it.

Needs `pip install 'langchain-resilient[openai,anthropic]'`, OPENAI_API_KEY and ANTHROPIC_API_KEY.
"""

from langchain_resilient import Provider, RateLimits, ResilientChatModel, capture_decisions

model = ResilientChatModel(
    providers=[
        Provider("openai:gpt-4.1", cost_per_1k=0.03, limits=RateLimits(rpm=500, tpm=200_000)),
        Provider("anthropic:claude-sonnet-4-5", cost_per_1k=0.03),
    ],
)

with capture_decisions() as decisions:
    print(model.invoke("Why does a circuit breaker have a half-open state?").content)

print(decisions[0].provider, [attempt.kind for attempt in decisions[0].attempts])
