"""A DeepAgent whose model does not go down with its provider.

The middleware runs the attempts of the main loop with the real models, so that provider-specific middleware (Anthropic's prompt caching)
still sees them; the model itself covers what the middleware does not reach: subagents and summarization. Both share their circuits.

Needs `pip install deepagents 'langchain-resilient[openai,anthropic]'`, OPENAI_API_KEY and ANTHROPIC_API_KEY.
"""

from deepagents import create_deep_agent
from langchain_core.tools import tool

from langchain_resilient import ResilientChatModel, ResilientModelMiddleware, capture_decisions


@tool
def get_weather(city: str) -> str:
    """Tell the weather of a city."""
    return f"It rains in {city}."


model = ResilientChatModel(providers=["anthropic:claude-sonnet-4-5", "openai:gpt-4.1"])
agent = create_deep_agent(model=model, tools=[get_weather], middleware=[ResilientModelMiddleware()])

with capture_decisions() as decisions:
    state = agent.invoke({"messages": [("user", "What is the weather in 'Bath'? Use get_weather.")]})

print(state["messages"][-1].text)
print([decision.provider for decision in decisions])
