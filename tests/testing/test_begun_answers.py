"""FaultServer goes on with an answer that another provider began: by a prefill, by an instruction, or not at all."""

import httpx
import pytest
from langchain_core.language_models import BaseChatModel

from langchain_resilient.testing.fault_server import PREFILL_REFUSALS, Fault, FaultServer, Refuse, Repeat
from langchain_resilient.testing.wires.resume import quoted_in, resumed
from tests.testing.paths import PATHS

FULL = "One. Two is\n here. Three 👨‍👩‍👧 ends."
BEGUN = "One. Two is"
REST = "\n here. Three 👨‍👩‍👧 ends."
MARKS = ("<so_far>", "</so_far>")


def said(model: BaseChatModel, messages: list[tuple[str, str]], *, stream: bool) -> str:
    """The text of an answer."""
    return "".join(chunk.text for chunk in model.stream(messages)) if stream else model.invoke(messages).text


def prefill(begun: str = BEGUN) -> list[tuple[str, str]]:
    """A conversation that ends with the text so far."""
    return [("human", "Count."), ("ai", begun)]


def instruction(begun: str = BEGUN) -> list[tuple[str, str]]:
    """A conversation that ends with an instruction to go on."""
    return [("human", "Count."), ("human", f"Go on right after {MARKS[0]}{begun}{MARKS[1]}.")]


# ── What is said ─────────────────────────────────────────────────────────────────────────────────────────────────────

SAID = {
    "continue": REST,
    "trimmed": "here. Three 👨‍👩‍👧 ends.",
    "restart": FULL,
    Repeat(4): "o is" + REST,
    Repeat(99): FULL,
    Repeat("sentence"): "Two is" + REST,
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("how", SAID, ids=str)
@pytest.mark.parametrize("way", ["prefill", "instruction"])
def test_each_way_to_go_on(
    server: FaultServer, model: BaseChatModel, wire: str, way: str, how: object, *, stream: bool
):
    """What follows a begun answer is what was told for its way, streamed or not, and the record shows the text so far."""
    told = {"prefill": how} if way == "prefill" else {"prefill": "refuse", "instructed": how, "quoted": MARKS}
    server.answer(FULL, **told)
    assert said(model, prefill() if way == "prefill" else instruction(), stream=stream) == SAID[how]
    [request] = server.requests
    assert (request.begun, request.begun_by, request.outcome) == (BEGUN, way, "ok")


def test_a_plain_question_is_answered_in_full(server: FaultServer, model: BaseChatModel):
    """A question that begins nothing gets the full answer, whatever was told for begun ones."""
    server.answer(FULL, prefill="continue", instructed="continue", quoted=MARKS)
    assert said(model, [("human", "One?")], stream=True) == FULL
    assert server.requests[0].begun is None and server.requests[0].begun_by is None


def test_an_instruction_without_marks(server: FaultServer, model: BaseChatModel):
    """Without marks the longest beginning of the answer that the last message holds is the text so far."""
    server.answer(FULL, instructed="continue")
    assert said(model, [("human", "Count."), ("human", f'You said "{BEGUN}", go on.')], stream=True) == REST
    assert server.requests[0].begun == BEGUN


def test_another_text_is_met_by_the_full_answer(server: FaultServer, model: BaseChatModel):
    """A provider that is shown a text which its answer doesn't begin with says all of its own, and the record tells."""
    server.answer(FULL, prefill="continue")
    assert said(model, prefill("Uno."), stream=True) == FULL
    assert server.requests[0].begun == "Uno."


def test_nothing_is_left_to_say(server: FaultServer, model: BaseChatModel):
    """A text so far that is the whole answer is met by an empty one, with its finish reason."""
    server.answer(FULL, prefill="continue")
    chunks = list(model.stream(prefill(FULL)))
    assert "".join(chunk.text for chunk in chunks) == ""
    reasons = {"finish_reason", "stop_reason", "done_reason"}
    assert any(reasons & chunk.response_metadata.keys() for chunk in chunks)


def test_usage_is_that_of_the_rest(server: FaultServer, model: BaseChatModel):
    """Output tokens are the words of what is said, not of the full answer."""
    server.answer("one two three four five", prefill="continue")
    assert model.invoke(prefill("one two")).usage_metadata["output_tokens"] == 3


@pytest.mark.parametrize(
    ("message", "marks", "found"),
    [
        ("a<so_far>One</so_far>b", MARKS, "One"),
        ("a<so_far></so_far>b", MARKS, ""),
        ("a<so_far>x</so_far>y</so_far>b", MARKS, "x</so_far>y"),  # the text may hold the mark itself
        ("a</so_far>", MARKS, None),
        ("a<so_far>x", MARKS, None),
        ("'One.'", None, "One."),
        ("nothing", None, None),
    ],
)
def test_the_quote_in_an_instruction(message: str, marks: tuple[str, str] | None, found: str | None):
    """Between the first opening and the last closing mark stands the text so far."""
    assert quoted_in(message, FULL, marks) == found


@pytest.mark.parametrize(
    ("begun", "again"),
    [
        ("One. Two", "Two"),
        ("One. Two.", "Two."),
        ("One", "One"),
        ("你好。再", "再"),
        ("a\nb", "b"),
        ("v1.2 is", "v1.2 is"),
    ],
)
def test_the_last_sentence(begun: str, again: str):
    """The last sentence may be unfinished, and a full stop inside a word ends none."""
    assert resumed(begun + "!", begun, Repeat("sentence")) == again + "!"


# ── Refusals ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("like", [None, *PREFILL_REFUSALS])
def test_a_refused_prefill(server: FaultServer, model: BaseChatModel, wire: str, like: str | None, *, stream: bool):
    """A prefill is refused with a 400 in the provider's words; the instruction that follows is not."""
    server.answer(FULL, prefill=Refuse(like), instructed="continue", quoted=MARKS)
    with pytest.raises(Exception) as caught:
        said(model, prefill(), stream=stream)
    usual = {"openai": "mistral", "anthropic": "anthropic", "ollama": "llama.cpp"}
    assert caught.value.status_code == 400
    assert PREFILL_REFUSALS[like or usual[wire]].message in str(caught.value)
    assert said(model, instruction(), stream=stream) == REST
    assert [r.outcome for r in server.requests] == ["prefill refused", "ok"]


def test_mistral_sends_its_error_bare(server: FaultServer):
    """Mistral's error object is the body itself, with a code that is a string."""
    server.answer(FULL, prefill="refuse")
    body = {"model": "m", "messages": [{"role": "assistant", "content": "One"}]}
    told = httpx.post(server.url + PATHS["openai"], json=body).json()
    assert (told["object"], told["code"], told["type"]) == ("error", "3230", "invalid_request_message_order")


@pytest.mark.parametrize("white", [" ", "\n", "\t"])
def test_anthropic_refuses_trailing_white_space(server: FaultServer, white: str):
    """Anthropic refuses a prefill that ends with white space even where it takes prefills; the other wires don't."""
    server.answer(FULL, prefill="continue")
    for content in ("One." + white, [{"type": "text", "text": "One." + white}]):
        body = {"model": "m", "stream": True, "messages": [{"role": "assistant", "content": content}]}
        told = {wire: httpx.post(server.url + path, json=body) for wire, path in PATHS.items()}
        assert {wire: answer.status_code for wire, answer in told.items()} == {
            "openai": 200,
            "anthropic": 400,
            "ollama": 200,
        }
        message = "messages: final assistant content cannot end with trailing whitespace"
        assert told["anthropic"].json()["error"] == {"type": "invalid_request_error", "message": message}


def test_an_unasked_tool_call_is_no_prefill(server: FaultServer):
    """An assistant message that calls a tool is nothing to go on with."""
    server.answer(FULL, prefill="refuse")
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    body = {"model": "m", "messages": [{"role": "assistant", "content": "", "tool_calls": [call]}]}
    assert httpx.post(server.url + PATHS["openai"], json=body).status_code == 200


def test_a_fault_comes_before_the_prefill_is_looked_at(server: FaultServer, model: BaseChatModel):
    """A provider that is down says so first; one that would break its stream refuses before it begins one."""
    server.answer(FULL, prefill="refuse")
    for fault, status in ((Fault.status(503), 503), (Fault.truncate(1), 400)):
        server.schedule(fault)
        with pytest.raises(Exception) as caught:
            said(model, prefill(), stream=True)
        assert caught.value.status_code == status


def test_unknown_words_are_explained(server: FaultServer):
    """A word that doesn't exist is an error that lists what there is."""
    for wrong in ({"prefill": "resume"}, {"instructed": "refuse"}):
        with pytest.raises(ValueError, match=r"continue, trimmed, restart"):
            server.answer(FULL, **wrong)
    with pytest.raises(ValueError, match="mistral"):
        Refuse("grok")
    with pytest.raises(ValueError, match="from 1 on"):
        Repeat(0)
    with pytest.raises(ValueError, match="1 or more"):
        server.answer(FULL, chunk_sizes=[3, 0])
