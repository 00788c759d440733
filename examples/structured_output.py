"""Answers of a schema, whoever gives them.

Each provider is asked in its own native way (OpenAI's JSON schema, Anthropic's tool, Ollama's format), and its own parser reads the answer.
One that does not fit the schema is a failure like any other: the next provider is asked.

Needs `pip install 'langchain-resilient[openai,anthropic]'`, OPENAI_API_KEY and ANTHROPIC_API_KEY.
"""

from pydantic import BaseModel, Field

from langchain_resilient import ResilientChatModel, capture_decisions


class Invoice(BaseModel):
    """An invoice."""

    number: str = Field(description="The invoice's number.")
    total: float = Field(description="What is to be paid, in euros.")


model = ResilientChatModel(providers=["openai:gpt-4.1", "anthropic:claude-sonnet-4-5"], temperature=0)
extract = model.with_structured_output(Invoice)

with capture_decisions() as decisions:
    invoice = extract.invoke("Invoice 2026-117: 3 hours at 80 euros, to be paid within 14 days.")

print(invoice.number, invoice.total)
print(decisions[0].provider, [attempt.kind for attempt in decisions[0].attempts])
