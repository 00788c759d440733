"""An agent with tools that goes on when its provider does not, in the middle of a conversation too.

The tools are bound for each provider in its own format, and what one provider has said is put to the next so that it is taken.

Needs `pip install 'langchain-resilient[openai,anthropic]'`, OPENAI_API_KEY and ANTHROPIC_API_KEY.
"""

from langchain.agents import create_agent
from langchain_core.tools import tool

from langchain_resilient import ResilientChatModel, capture_decisions


@tool
def get_weather(city: str) -> str:
    """Tell the weather of a city."""
    return f"It rains in {city}."


model = ResilientChatModel(providers=["openai:gpt-4.1", "anthropic:claude-sonnet-4-5"])
agent = create_agent(model, tools=[get_weather], system_prompt="Look it up with get_weather before you answer.")

with capture_decisions() as decisions:
    state = agent.invoke({"messages": [("user", "What is the weather in 'Bath'?")]})

for message in state["messages"]:
    print(f"{message.type:>5}: {message.text or message.tool_calls}")
print([decision.provider for decision in decisions])
