"""A chat on the terminal, streamed: type, read, and an empty line ends it.

A provider that fails or stays silent before its first word costs the reader nothing but a moment; who answered stands behind each answer.

Needs `pip install 'langchain-resilient[openai,anthropic]'`, OPENAI_API_KEY and ANTHROPIC_API_KEY.
"""

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage

from langchain_resilient import ResilientChatModel, StreamInterruptedError, Timeouts, capture_decisions

model = ResilientChatModel(
    providers=["openai:gpt-4.1", "anthropic:claude-sonnet-4-5"],
    timeouts=Timeouts(first_token=5.0, idle=10.0),
)


def answer(conversation: list[AnyMessage]) -> str:
    """Show the answer as it comes; returns all of it."""
    text = ""
    try:
        for chunk in model.stream(conversation):
            print(chunk.text, end="", flush=True)
            text += chunk.text
    except StreamInterruptedError as error:
        print(f" … ({error})", end="")
    return text


conversation: list[AnyMessage] = []
while question := input("you: "):
    conversation.append(HumanMessage(question))
    with capture_decisions() as decisions:
        conversation.append(AIMessage(answer(conversation)))
    print(f"\n     ({decisions[0].provider}, first word after {decisions[0].first_token:.2f} s)")
