"""Structured output: each provider in its native way, read by the one that answered."""

import json
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.exceptions import OutputParserException
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.output_parsers import JsonOutputParser, PydanticOutputParser
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import RunnableLambda, RunnableMap, RunnablePassthrough
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, ValidationError
from typing_extensions import TypedDict

from langchain_resilient import AllProvidersFailedError, Retry, capture_decisions
from langchain_resilient.testing import Fault, FaultServer, ScriptedChatModel
from tests.clients import WAYS, WIRES, BusyError, instance, resilient


class Person(BaseModel):
    """Somebody."""

    name: str
    age: int


class PersonDict(TypedDict):
    """Somebody."""

    name: str
    age: int


SCHEMAS = {
    "pydantic": Person,
    "typed dict": PersonDict,
    "json schema": {"title": "Person", **Person.model_json_schema()},
}
ANN = {"name": "Ann", "age": 42}
QUESTION = "Who is it?"


@pytest.fixture
def servers():
    """A provider that is asked first, and one that is asked next."""
    with FaultServer() as first, FaultServer() as second:
        for server in (first, second):
            server.answer(json.dumps(ANN))
        yield first, second


async def read(chain: Any, way: str, question: Any = QUESTION) -> Any:
    """What a chain gives in one of the four ways; of a stream the last, or the sum of a dict's parts."""
    if way == "invoke":
        return chain.invoke(question)
    if way == "ainvoke":
        return await chain.ainvoke(question)
    parts = list(chain.stream(question)) if way == "stream" else [part async for part in chain.astream(question)]
    if not isinstance(parts[0], dict) or "raw" not in parts[0]:
        return parts[-1]
    whole = {}
    for part in parts:
        whole |= part
    return whole


def plain(value: Any) -> Any:
    """A result as a dict."""
    return value.model_dump() if isinstance(value, BaseModel) else value


@pytest.mark.parametrize("way", ["invoke", "ainvoke", "astream"])
@pytest.mark.parametrize("schema", SCHEMAS)
@pytest.mark.parametrize("wire", WIRES)
async def test_the_first_provider_is_asked_as_the_bare_model_would_ask(servers, wire: str, schema: str, way: str):
    """The same body to the letter, and a result of the same type and content."""
    first, second = servers
    bare = instance(first, wire).with_structured_output(SCHEMAS[schema])
    ours = resilient(instance(first, wire), instance(second, "openai", "other")).with_structured_output(SCHEMAS[schema])
    results = await read(bare, way), await read(ours, way)
    assert results[0] == results[1]
    assert type(results[0]) is type(results[1])
    bodies = [record.body for record in first.requests]
    assert bodies[0] == bodies[1]
    assert second.count == 0


@pytest.mark.parametrize("way", ["ainvoke", "astream"])
@pytest.mark.parametrize("schema", SCHEMAS)
@pytest.mark.parametrize("other", WIRES)
@pytest.mark.parametrize("wire", WIRES)
async def test_a_fallback_is_asked_and_read_in_its_own_way(servers, wire: str, other: str, schema: str, way: str):
    """Its request is what its own bare model would send, and its own parser reads the answer."""
    first, second = servers
    first.always(Fault.status(503))
    bare = instance(second, other, "two").with_structured_output(SCHEMAS[schema])
    model = resilient(instance(first, wire, "one"), instance(second, other, "two"))
    results = await read(bare, way), await read(model.with_structured_output(SCHEMAS[schema]), way)
    assert plain(results[0]) == plain(results[1]) != {}
    bodies = [record.body for record in second.requests]
    assert bodies[0] == bodies[1]


@pytest.mark.parametrize("method", ["json_schema", "function_calling", "json_mode"])
@pytest.mark.parametrize("other", WIRES)
async def test_a_method_that_a_fallback_does_not_have_is_left_out_and_told(servers, other: str, method: str):
    """OpenAI's methods are not everybody's: the next provider takes its own, and the record says so."""
    first, second = servers
    first.always(Fault.status(503))
    second.answer(json.dumps(ANN) if method == "json_mode" else None)  # None: calls the tool that is forced or named
    model = resilient(instance(first, "openai", "one"), instance(second, other, "two"))
    with capture_decisions() as decisions:
        result = await model.with_structured_output(Person, method=method).ainvoke("Call Person, give JSON.")
    assert isinstance(result, Person)
    told = decisions[0].attempts[-1].changed
    assert told in ((), ("structured output's method left out",))


# ------------------------------------------------------------------------------------------------- answers that don't parse
class Structured(ScriptedChatModel):
    """Reads its answers as JSON of a person, as partner packages do: a binding, then a parser."""

    def with_structured_output(self, schema: Any, *, include_raw: bool = False, **kwargs: Any) -> Any:
        bound = self.bind(format="json", ls_structured_output_format={"schema": {}, "kwargs": {}})
        parser = PydanticOutputParser(pydantic_object=Person)
        if not include_raw:
            return bound | parser
        assign = RunnablePassthrough.assign(
            parsed=lambda given: parser.invoke(given["raw"]), parsing_error=lambda _: None
        )
        none = RunnablePassthrough.assign(parsed=lambda _: None)
        return RunnableMap(raw=bound) | assign.with_fallbacks([none], exception_key="parsing_error")


GOOD, BAD, WRONG = json.dumps(ANN), "I would rather not.", json.dumps({"name": "Ann", "age": "old"})


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
@pytest.mark.parametrize("answer", [BAD, WRONG])
@pytest.mark.parametrize("include_raw", [False, True])
async def test_an_answer_that_cannot_be_read_falls_over(answer: str, include_raw: bool, way: str):
    """Not JSON, or not the schema: another provider is asked at once, and the circuit learns nothing."""
    one, two = Structured(model_name="one", script=[answer]), Structured(model_name="two", script=[GOOD])
    model = resilient(one, two)
    chain = model.with_structured_output(Person, include_raw=include_raw)
    with capture_decisions() as decisions:
        result = await read(chain, way)
    assert (result["parsed"] if include_raw else result) == Person(**ANN)
    assert [(attempt.provider, attempt.kind) for attempt in decisions[0].attempts] == [
        ("scripted/one", "invalid_output"), ("scripted/two", "ok"),
    ]  # fmt: skip
    assert model.status()["scripted/one"]["failures_in_a_row"] == 0
    if include_raw:
        assert (result["raw"].content, result["parsing_error"]) == (GOOD, None)


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
async def test_one_provider_alone_is_asked_once_more(way: str):
    """A second try may be read; and if not, the caller gets the parser's own exception, as from the bare model."""
    once = resilient(Structured(script=[BAD, GOOD]))
    assert await read(once.with_structured_output(Person), way) == Person(**ANN)
    never = Structured(script=[BAD])
    with pytest.raises(OutputParserException) as bare:
        await read(never.with_structured_output(Person), way)
    with pytest.raises(OutputParserException) as ours:
        await read(resilient(never).with_structured_output(Person), way)
    assert str(ours.value) == str(bare.value)
    assert len(never.calls) == 3  # the bare model's one call, and ours' two


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
async def test_where_nobody_can_be_read_the_raw_answer_and_its_error_are_given(way: str):
    """With `include_raw` nothing is raised, as from the bare model."""
    model = resilient(*(Structured(model_name=name, script=[BAD]) for name in ("one", "two")))
    result = await read(model.with_structured_output(Person, include_raw=True), way)
    assert (result["raw"].content, result["parsed"]) == (BAD, None)
    assert isinstance(result["parsing_error"], OutputParserException)


async def test_where_all_answers_are_unreadable_the_parsers_exception_comes():
    """From several providers too; but where one failed otherwise, the group says what each did."""
    with pytest.raises(OutputParserException):
        resilient(*(Structured(model_name=name, script=[BAD]) for name in "ab")).with_structured_output(Person).invoke(
            "x"
        )
    mixed = resilient(Structured(model_name="a", script=[BusyError()]), Structured(model_name="b", script=[BAD]))
    with pytest.raises(AllProvidersFailedError) as group:
        mixed.with_structured_output(Person).invoke("x")
    assert BAD not in str(group.value) + "".join(map(str, group.value.exceptions))


@pytest.mark.parametrize("include_raw", [False, True])
def test_an_answer_without_what_was_asked_for_falls_over(servers, include_raw: bool):
    """A model that says something instead of calling the tool gives None from the bare model: here the next one is asked."""
    first, second = servers
    first.always(Fault.ok("I would rather talk."))
    second.answer(None)
    model = resilient(instance(first, "openai", "one"), instance(second, "openai", "two"))
    chain = model.with_structured_output(Person, method="function_calling", include_raw=include_raw)
    result = chain.invoke(QUESTION)
    assert isinstance(result["parsed"] if include_raw else result, Person)
    second.always(Fault.ok("So would I."))
    result = chain.invoke(QUESTION)
    assert (result["parsed"] if include_raw else result) is None


def test_no_retry_for_unreadable_answers_where_retries_are_off():
    """`max_retries=0` holds for them as well."""
    inner = Structured(script=[BAD, GOOD])
    with pytest.raises(OutputParserException):
        resilient(inner, retry=Retry(max_retries=0)).with_structured_output(Person).invoke("x")
    assert len(inner.calls) == 1


# ------------------------------------------------------------------------------------------------------------------- shapes
class Opaque(ScriptedChatModel):
    """Its structured output is one runnable that can't be taken apart."""

    def with_structured_output(self, schema: Any, *, include_raw: bool = False, **kwargs: Any) -> Any:
        def ask(question: Any) -> Any:
            message = self.invoke(question)
            value = Person(**json.loads(message.text))
            return {"raw": message, "parsed": value, "parsing_error": None} if include_raw else value

        return RunnableLambda(ask)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("include_raw", [False, True])
@pytest.mark.parametrize("kinds", [(Opaque, Opaque), (Structured, Opaque), (Opaque, Structured)])
async def test_chains_that_cannot_be_taken_apart_are_called_as_a_whole(kinds: Any, include_raw: bool, way: str):
    """As first provider, as fallback, and mixed with others."""
    one = kinds[0](model_name="one", script=[BusyError()])
    two = kinds[1](model_name="two", script=[GOOD])
    result = await read(resilient(one, two).with_structured_output(Person, include_raw=include_raw), way)
    assert (result["parsed"] if include_raw else result) == Person(**ANN)
    alone = resilient(kinds[0](model_name="alone", script=[GOOD])).with_structured_output(
        Person, include_raw=include_raw
    )
    result = await read(alone, way)
    assert (result["parsed"] if include_raw else result) == Person(**ANN)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("settings", ["cached", "v1"])
async def test_what_an_opaque_chain_made_outlives_its_message(settings: str, way: str):
    """A cache and another output version hand on copies of the message: what the chain made goes with them."""
    inner = Opaque(script=[GOOD, GOOD])
    given: dict[str, Any] = {"cache": InMemoryCache()} if settings == "cached" else {"output_version": "v1"}
    chain = resilient(inner, **given).with_structured_output(Person)
    assert [await read(chain, way), await read(chain, way)] == [Person(**ANN)] * 2
    if settings == "cached" and "invoke" in way:
        assert len(inner.calls) == 1


class OpaqueOpenAI(ChatOpenAI):
    """A real client whose structured output is one runnable."""

    def with_structured_output(self, schema: Any, **kwargs: Any) -> Any:
        return RunnableLambda(lambda question: Person(**json.loads(self.invoke(question).text)))


@pytest.mark.parametrize("way", WAYS)
async def test_an_opaque_chains_stream_is_whole_and_its_tokens_count(servers, way: str):
    """Its one answer is no broken stream, though the client's wire sends finish reasons; what it cost is in the record."""
    client = instance(servers[0], "openai", "one")
    model = resilient(OpaqueOpenAI(**client.model_dump(include={"model_name", "max_retries"}), api_key="sk-test",
                                   base_url=servers[0].base_url("openai")))  # fmt: skip
    with capture_decisions() as decisions:
        assert await read(model.with_structured_output(Person), way) == Person(**ANN)
    assert decisions[0].outcome == "answered"
    assert decisions[0].usage is not None and decisions[0].usage.output > 0


@pytest.mark.parametrize("include_raw", [False, True])
async def test_a_reader_that_is_a_coroutine_function_is_awaited(include_raw: bool):
    """`ainvoke` reads with what the chain has for it, as the bare model's chain does."""

    async def person(message: Any) -> Person:
        return Person(**json.loads((message["raw"] if include_raw else message).text))

    class Awaiting(ScriptedChatModel):
        def with_structured_output(self, schema: Any, **kwargs: Any) -> Any:
            if include_raw:
                return RunnableMap(raw=self.bind()) | RunnablePassthrough.assign(parsed=RunnableLambda(person))
            return self.bind() | RunnableLambda(person)

    model = resilient(Awaiting(model_name="one", script=[BAD, GOOD]))
    settings = {"include_raw": True} if include_raw else {}
    result = await model.with_structured_output(Person, **settings).ainvoke("x")
    assert (result["parsed"] if include_raw else result) == Person(**ANN)


class Partial(ScriptedChatModel):
    """Its parser gives partial objects as a stream comes."""

    def with_structured_output(self, schema: Any, **kwargs: Any) -> Any:
        return self.bind() | JsonOutputParser()


@pytest.mark.parametrize("way", ["stream", "astream"])
async def test_a_stream_shows_partial_objects_as_they_come(way: str):
    """As the bare model's does, by the parser of the provider that answers."""
    text = '{"name": "Ann", "age": 42, "town": "Bath"}'
    model = resilient(Partial(model_name="one", script=[BusyError()]), Partial(model_name="two", script=[text]))
    chains = Partial(script=[text]).with_structured_output({}), model.with_structured_output({})
    seen = [
        [part async for part in chain.astream("x")] if way == "astream" else list(chain.stream("x")) for chain in chains
    ]
    assert seen[0] == seen[1]
    assert len(seen[1]) > 2


def test_an_answer_from_a_cache_is_read_all_the_same():
    """Its message is not the one that was read in the attempt: the provider's parser reads it then."""
    inner = Structured(script=[GOOD, "not asked again"])
    model = resilient(inner, cache=InMemoryCache())
    chain = model.with_structured_output(Person)
    assert [chain.invoke("x"), chain.invoke("x")] == [Person(**ANN), Person(**ANN)]
    assert len(inner.calls) == 1


def test_nothing_is_kept_of_answers_that_are_gone():
    """What was read is forgotten with its message."""
    from langchain_resilient.binding import _ANSWERS

    before = len(_ANSWERS)
    chain = resilient(Structured(script=[GOOD])).with_structured_output(Person)
    for _ in range(50):
        chain.invoke("x")
    assert len(_ANSWERS) <= before + 1


def test_a_model_whose_method_knows_the_schema_alone_is_given_no_more():
    """Many fakes' `with_structured_output` takes no `include_raw`: what the caller did not say is not said."""

    class Plain(ScriptedChatModel):
        def with_structured_output(self, schema: Any) -> Any:
            return RunnableLambda(lambda _: {"a": 1})

    assert resilient(Plain()).with_structured_output(Person).invoke("x") == {"a": 1}


def test_what_the_first_cannot_do_is_raised_at_once():
    """As from the bare model: a schema that makes no sense fails where it is bound."""
    with pytest.raises((NotImplementedError, ValueError, TypeError)):
        resilient(ScriptedChatModel()).with_structured_output(Person)


async def test_the_chain_has_one_model_run():
    """One `on_chat_model_start`, whoever answers; the failed attempt is no run of its own."""
    started: list[str] = []
    model = resilient(Structured(model_name="one", script=[BAD]), Structured(model_name="two", script=[GOOD]))
    async for event in model.with_structured_output(Person).astream_events("x", version="v2"):
        if event["event"] == "on_chat_model_start":
            started.append(event["name"])
    assert started == ["ResilientChatModel"]


def test_a_pydantic_mistake_is_the_callers_exception():
    """A validation error of the schema itself reaches the caller as pydantic raised it."""

    class Validating(ScriptedChatModel):
        def with_structured_output(self, schema: Any, **kwargs: Any) -> Any:
            return self.bind() | RunnableLambda(lambda message: Person(**json.loads(message.text)))

    with pytest.raises(ValidationError):
        resilient(Validating(script=[WRONG])).with_structured_output(Person).invoke("x")


def test_the_bound_model_is_a_message_model_still():
    """`with_structured_output` leaves the model as it was: it answers messages."""
    inner: BaseChatModel = Structured(script=[GOOD])
    model = resilient(inner)
    model.with_structured_output(Person)
    assert isinstance(model.invoke("x"), AIMessage)


def test_one_message_may_be_the_answer_to_several_schemas():
    """A model that gives the same message object again is read by the schema that was asked for, and nothing piles up."""
    shared = AIMessage(GOOD)

    class Town(BaseModel):
        """Somewhere."""

        name: str

    class Shared(ScriptedChatModel):
        def _generate(self, *arguments: Any, **kwargs: Any) -> ChatResult:
            return ChatResult(generations=[ChatGeneration(message=shared)])

        def with_structured_output(self, schema: Any, **kwargs: Any) -> Any:
            return self.bind() | PydanticOutputParser(pydantic_object=schema)

    model = resilient(Shared())
    person, town = model.with_structured_output(Person), model.with_structured_output(Town)
    asked = [chain.steps[0].invoke("x") for chain in (person, town)]
    assert [person.steps[1].invoke(asked[0]), town.steps[1].invoke(asked[1])] == [Person(**ANN), Town(name="Ann")]
