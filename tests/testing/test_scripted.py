"""ScriptedChatModel: says its script, like a chat model."""

import threading
import traceback

import pytest

from langchain_resilient.testing import ScriptedChatModel


async def test_it_says_its_lines_in_order_and_the_last_for_ever():
    """Each call takes the next line, whichever way it comes; exceptions are raised; the last line repeats."""
    model = ScriptedChatModel(script=["one", TimeoutError("late"), lambda messages: f"you said {messages[-1].text}"])
    assert model.invoke("a").text == "one"
    with pytest.raises(TimeoutError, match="late"):
        await model.ainvoke("b")
    assert "".join(chunk.text for chunk in model.stream("c")) == "you said c"
    assert "".join([chunk.text async for chunk in model.astream("d")]) == "you said d"
    assert [messages[-1].text for messages in model.calls] == ["a", "b", "c", "d"]


def test_answers_carry_what_a_providers_do():
    """Usage, model name and finish reason are set."""
    message = ScriptedChatModel(script=["three words here"], model_name="m").invoke("hi")
    assert message.usage_metadata == {"input_tokens": 10, "output_tokens": 3, "total_tokens": 13}
    assert message.response_metadata["model_name"] == "m" and message.response_metadata["finish_reason"] == "stop"


def test_a_stream_has_a_word_a_chunk_and_ends_with_its_usage():
    """Words are chunks; the last chunk holds usage and finish reason, and the sum equals the whole answer."""
    chunks = list(ScriptedChatModel(script=["a b c"]).stream("hi"))
    assert [chunk.text for chunk in chunks if chunk.text] == ["a", " b", " c"]
    whole = sum(chunks[1:], chunks[0])
    assert whole.usage_metadata["output_tokens"] == 3 and whole.response_metadata["finish_reason"] == "stop"


def test_it_breaks_where_told():
    """`break_after` raises in a stream after so many chunks, and only there."""
    model = ScriptedChatModel(script=["a b c"], break_after=2)
    shown = []
    with pytest.raises(ConnectionError, match="the connection was lost"):
        for chunk in model.stream("hi"):
            shown.append(chunk.text)
    assert shown == ["a", " b"] and model.invoke("hi").text == "a b c"


def test_an_exception_in_a_stream_comes_before_any_chunk():
    """A line that is an exception is raised at the stream's first step."""
    with pytest.raises(ValueError, match="no"):
        next(ScriptedChatModel(script=[ValueError("no")]).stream("hi"))


def test_threads_take_one_line_each():
    """Calls from many threads take each line once."""
    model = ScriptedChatModel(script=[str(index) for index in range(20)])
    said: list[str] = []
    threads = [threading.Thread(target=lambda: said.append(model.invoke("hi").text)) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(said, key=int) == [str(index) for index in range(20)]


def test_each_model_has_its_own_record():
    """Two models share no calls."""
    one, two = ScriptedChatModel(), ScriptedChatModel()
    one.invoke("hi")
    assert len(one.calls) == 1 and two.calls == []


def test_an_exception_of_the_script_does_not_grow():
    """An exception that is raised again and again keeps only the last call's traceback."""
    error = ValueError("no")
    model, lengths = ScriptedChatModel(script=[error]), []
    for _ in range(3):
        with pytest.raises(ValueError, match="no"):
            model.invoke("hi")
        lengths.append(len(traceback.extract_tb(error.__traceback__)))
    assert lengths[0] == lengths[1] == lengths[2]
