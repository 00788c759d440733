"""A service for many users: each has limits of their own, and none of them notices when a provider is down.

    uvicorn --app-dir examples fastapi_app:app --workers 2
    curl -i localhost:8000/generate -H 'Authorization: Bearer demo' -H 'Content-Type: application/json' -d '{"text": "Hello"}'

Who has used up a limit is answered 429, with an exact Retry-After. Who hangs up stops the call to the provider. What nobody could answer
costs its user nothing, and what was answered costs what it really took. With REDIS_URL all workers share their limits.

Needs `pip install 'langchain-resilient[openai,anthropic,redis]' fastapi uvicorn`, OPENAI_API_KEY and ANTHROPIC_API_KEY.
"""

import asyncio
import json
import math
import os
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import aclosing, contextmanager
from typing import Annotated, TypeVar

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import StreamingResponse
from langchain_core.messages import AIMessage
from pydantic import BaseModel

from langchain_resilient import Admission, KeyedRateLimiter, RateLimits, ResilienceError, ResilientChatModel

T = TypeVar("T")
BACKEND = os.environ.get("REDIS_URL", "memory://")
USERS = {"demo": "user-1", "other": "user-2"}  # tokens: yours are in a database
EXPECTED = 1000  # tokens of a usual request

model = ResilientChatModel(providers=["openai:gpt-4.1", "anthropic:claude-sonnet-4-5"], backend=BACKEND)
limiter = KeyedRateLimiter(BACKEND, RateLimits(rpm=20, burst=5, tpm=60_000), user_type="free")
app = FastAPI()


class Question(BaseModel):
    """What a user asks."""

    text: str


def user_of(request: Request) -> str:
    """Who asks, by their bearer token."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or token not in USERS:
        raise HTTPException(401, "unknown token", {"WWW-Authenticate": "Bearer"})
    return USERS[token]


Place = Annotated[Admission, Depends(limiter.dependency(key=user_of, tokens=EXPECTED))]


@app.post("/generate")
async def generate(question: Question, request: Request, place: Place) -> dict[str, str]:
    """The whole answer."""
    with refunded(place):
        answer = await unless_hung_up(request, model.ainvoke(question.text))
    settle(place, answer)
    return {"text": answer.text}


@app.post("/generate/stream")
async def generate_stream(question: Question, request: Request, place: Place) -> StreamingResponse:
    """The answer as it comes, as server-sent events."""
    chunks = model.astream(question.text)
    with refunded(place):  # until its first word a stream can still be answered with a status
        first = await unless_hung_up(request, anext(chunks))

    async def events() -> AsyncIterator[str]:
        answer = first
        yield event("text", first.text)
        try:
            async with aclosing(chunks):
                async for chunk in chunks:
                    answer += chunk
                    yield event("text", chunk.text)
        except ResilienceError as error:
            yield event("error", str(error))
        settle(place, answer)
        yield event("done", "")

    return StreamingResponse(events(), media_type="text/event-stream", headers=place.headers)


@app.get("/status")
def status() -> dict[str, dict[str, object]]:
    """What is known of the providers: for you, not for your users."""
    return model.status()


def event(kind: str, text: str) -> str:
    """A server-sent event."""
    return f"event: {kind}\ndata: {json.dumps(text)}\n\n"


def settle(place: Admission, answer: AIMessage) -> None:
    """Charge what was really used, where the provider says what that is."""
    if answer.usage_metadata:
        limiter.settle(place, tokens=answer.usage_metadata["total_tokens"])


@contextmanager
def refunded(place: Admission) -> Iterator[None]:
    """What nobody could answer costs nothing."""
    try:
        yield
    except ResilienceError as error:
        limiter.refund(place)
        seconds = math.ceil(error.retry_after or 1)
        raise HTTPException(503, "no provider can answer now", {"Retry-After": str(seconds)}) from error


async def unless_hung_up(request: Request, answer: Awaitable[T]) -> T:
    """Wait for the answer, and cancel it when the client goes away."""

    async def hung_up() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    answering, watching = asyncio.ensure_future(answer), asyncio.create_task(hung_up())
    try:
        await asyncio.wait([answering, watching], return_when=asyncio.FIRST_COMPLETED)
        if not answering.done():
            raise HTTPException(499, "the client hung up")
        return answering.result()
    finally:
        answering.cancel()
        watching.cancel()
        await asyncio.gather(answering, watching, return_exceptions=True)
