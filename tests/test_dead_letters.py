"""A chat model that keeps what nobody could answer, and answers it later."""

import asyncio
import json
import logging
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from langchain_resilient import DeadLetters, ReplayReport, ResilientChatModel, Retry, SettingsError
from langchain_resilient.engine.dead_letters.box import BoxError
from langchain_resilient.engine.dead_letters.keeping import WRITERS
from langchain_resilient.engine.events import DeadLettered, LettersWatched, Replayed
from langchain_resilient.testing import Fault, FaultServer
from tests.clients import ANSWER, WAYS, BusyError, ask, failure, fresh, instance, resilient, scripted
from tests.servers import until

ONCE = Retry(max_retries=0)


class Person(BaseModel):
    """Somebody."""

    name: str


@pytest.fixture
def where(tmp_path: Path) -> str:
    """A file for letters."""
    return str(tmp_path / "letters.db")


def keeping(where: Any, *models: Any, **settings: Any) -> Any:
    """A model that keeps letters."""
    return resilient(*models, dead_letters=where, retry=ONCE, **settings)


@pytest.mark.parametrize("way", WAYS)
async def test_nobody_answers_now_and_somebody_does_later(where: str, way: str):
    """In all four ways: a failed call leaves a letter with the question, its attempts and whose it is; a replay answers it by its key."""
    with FaultServer() as server:
        server.always(Fault.status(503))
        model = keeping(where, instance(server, "openai"))
        config = {"configurable": {"tenant": "acme", "idempotency_key": "order-7"}}
        error = await failure(model, way, "Where is order 7?", config=config)
        ((state, letter),) = model.letters.letters()
        assert (state, letter.key, letter.kind, letter.tenant) == ("waiting", "order-7", "overloaded", "acme")
        assert [(one["provider"], one["kind"], one["status"]) for one in letter.attempts] == [
            ("openai/one", "overloaded", 503)
        ]
        assert letter.content["messages"][0]["data"]["content"] == "Where is order 7?"
        assert any(letter.id in note for note in error.__notes__)
        server.always(Fault.ok("It is on its way."))
        replay = model.replay if way in {"invoke", "stream"} else model.areplay
        report = replay()
        assert (await report if asyncio.iscoroutine(report) else report) == ReplayReport(answered=1)
        found = model.letters.result("order-7", "acme")
        assert (found.letter, found.value["data"]["content"]) == (letter.id, "It is on its way.")
        assert model.letters.counts()[:3] == (0, 0, 0)


def test_without_it_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """By default no file appears, and there is no box."""
    monkeypatch.chdir(tmp_path)
    model = resilient(scripted("one", BusyError()))
    with pytest.raises(BusyError):
        model.invoke("hi")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(SettingsError, match="dead_letters: got None; set it"):
        _ = model.letters


def test_true_is_a_file_beside_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """With the memory backend `True` is a SQLite file in the working directory, for its owner alone."""
    monkeypatch.chdir(tmp_path)
    model = keeping(True, scripted("one", BusyError()))
    with pytest.raises(BusyError):
        model.invoke("hi")
    (found,) = tmp_path.glob("*.db")
    assert (found.name, found.stat().st_mode & 0o777) == ("langchain-resilient-dead-letters.db", 0o600)


def test_with_redis_it_is_a_stream_there(redis_url: str, tmp_path: Path):
    """With a Redis backend `True` is that Redis: another process of the namespace sees the letter, and answers it."""
    namespace = fresh()
    settings = {"backend": redis_url, "namespace": namespace}
    first = keeping(DeadLetters(spool=str(tmp_path / "a")), scripted("one", BusyError()), **settings)
    with pytest.raises(BusyError):
        first.invoke("hi", config={"configurable": {"idempotency_key": "k"}})
    second = keeping(DeadLetters(spool=str(tmp_path / "b")), scripted("one", ANSWER), **settings)
    assert second.replay() == ReplayReport(answered=1)
    assert first.letters.result("k").value["data"]["content"] == ANSWER


def test_the_same_question_is_one_letter(where: str):
    """A caller that tries again and again leaves one letter; another tenant's is another."""
    model = keeping(where, scripted("one", BusyError()))
    for tenant in ("acme", "acme", "zeta"):
        with pytest.raises(BusyError):
            model.invoke("hi", config={"configurable": {"tenant": tenant}})
    assert sorted(letter.tenant for _, letter in model.letters.letters()) == ["acme", "zeta"]


def test_what_can_t_be_written_makes_no_two_questions_one(where: str):
    """Where an argument has no JSON nobody can say that two calls are the same: each is a letter."""
    model = keeping(where, scripted("one", BusyError()))
    for _ in range(2):
        with pytest.raises(BusyError):
            model.invoke("hi", response_format=object())
    first, second = (letter for _, letter in model.letters.letters())
    assert first.key != second.key


async def test_cancelled_while_they_are_written(where: str):
    """More callers than there are threads that write go away at once: every letter is written all the same."""
    model = keeping(where, scripted("one", BusyError()), max_pending=None)
    keeper = model._engine.keeper
    write, free = keeper.box.put, threading.Event()

    def slow(letter: Any) -> Any:
        free.wait(20)
        return write(letter)

    keeper.box.put = slow
    calls = [asyncio.create_task(model.ainvoke(f"question {number}")) for number in range(3 * WRITERS)]
    await asyncio.to_thread(until, lambda: keeper._writers._work_queue.qsize() == 2 * WRITERS, "all fail")
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    free.set()
    await asyncio.to_thread(until, lambda: model.letters.counts().waiting == 3 * WRITERS, "all are written")
    del keeper.box.put


def test_a_schema_is_asked_for_again(where: str):
    """The letter of a structured call is answered to its schema, and `through` gives it to the user's own chain."""
    with FaultServer() as server:
        server.always(Fault.status(503))
        model = keeping(where, instance(server, "openai"))
        chain = model.with_structured_output(Person)
        for key in ("a", "b"):
            with pytest.raises(Exception, match=r".*"):
                chain.invoke(f"Who is {key}?", config={"configurable": {"idempotency_key": key}})
        server.always(Fault.ok())
        assert model.replay(most=1) == ReplayReport(answered=1)
        assert set(model.letters.result("a").value) == {"name"}
        seen = []
        assert model.replay(through=chain | seen_by(seen)) == ReplayReport(answered=1)
        assert isinstance(seen[0], Person)
        assert set(model.letters.result("b").value) == {"name"}


def seen_by(seen: list[Any]) -> Any:
    """A step of a chain that looks on."""

    def look(value: Any) -> Any:
        seen.append(value)
        return value

    return look


def test_a_replay_goes_by_circuits(where: str):
    """While the circuit is open nobody is asked, and the report says when to come again; the letters wait, uncounted."""
    model = keeping(where, scripted("one", BusyError()))
    for number in range(6):
        assert model_fails(model, f"question {number}")
    assert model.status()["scripted/one"]["circuit"] == "open"
    before = len(model.providers[0].calls)
    report = model.replay()
    assert (report.answered, report.failed, report.parked) == (0, 0, 0)
    assert 50 < report.retry_after <= 67
    assert len(model.providers[0].calls) == before
    assert {letter.deliveries for _, letter in model.letters.letters()} == {0}


def model_fails(model: Any, question: str) -> bool:
    """Whether a call raises."""
    try:
        model.invoke(question)
    except Exception:
        return True
    return False


def test_a_replay_that_fails_is_no_new_letter(where: str):
    """What fails again goes back as the letter that it is."""
    model = keeping(where, scripted("one", BusyError()))
    assert model_fails(model, "hi")
    assert model.replay() == ReplayReport(failed=1)
    assert [letter.deliveries for _, letter in model.letters.letters()] == [1]


def test_a_replay_inside_a_running_loop(where: str):
    """`replay` may be called where a loop runs, as in a notebook."""
    model = keeping(where, scripted("one", BusyError(), ANSWER))
    assert model_fails(model, "hi")

    async def notebook() -> ReplayReport:
        return model.replay()

    assert asyncio.run(notebook()) == ReplayReport(answered=1)


def test_observers_are_told(where: str):
    """Of a letter that is written, of how many there are, and of what became of it."""
    events: list[Any] = []
    model = keeping(where, scripted("one", BusyError(), ANSWER), observers=[events.append])
    assert model_fails(model, "hi")
    model.replay()
    (kept,) = [event for event in events if isinstance(event, DeadLettered)]
    assert (kept.kind, kept.where) == ("overloaded", "sqlite")
    assert [(event.letter, event.outcome) for event in events if isinstance(event, Replayed)] == [
        (kept.letter, "answered")
    ]
    (watched,) = [event for event in events if isinstance(event, LettersWatched)]
    assert watched.counts() == (0, 0, 0, 0, None)


def test_one_place_has_one_name(where: str, tmp_path: Path):
    """However it is written, and whatever else is set, a place is told of by one name, another by another; a URL's password is not in it."""

    def told(given: Any, **settings: Any) -> str:
        events: list[Any] = []
        keeping(given, observers=[events.append], **settings)
        return next(event.place for event in events if isinstance(event, LettersWatched))

    relative = os.path.relpath(where)
    names = {told(given) for given in (where, relative, f"sqlite:///{relative}", DeadLetters(where, keep_results=3600))}
    assert len(names) == 1
    urls = ("redis://:planted@127.0.0.1:1/0", "redis://:planted@127.0.0.1:1/1")
    inside = {told(DeadLetters(url, spool=str(tmp_path)), namespace=space) for url in urls for space in ("a", "b")}
    assert len(inside | names) == 5
    assert not any(word in name for name in inside | names for word in ("redis", "planted", "letters"))


async def test_a_box_that_fails_changes_nothing_for_the_caller(where: str, caplog: pytest.LogCaptureFixture):
    """Where the letter can't be written the caller's own error arrives, the log says that a request is lost, and nothing of what it was."""
    events: list[Any] = []
    model = keeping(where, scripted("one", BusyError()), observers=[events.append])

    def broken(letter: Any) -> bool:
        raise BoxError(f"secret prompt {letter.content}")

    model.letters.put = broken
    try:
        with caplog.at_level(logging.ERROR):
            for way in WAYS:
                assert isinstance(await failure(model, way, "the prompt"), Exception)
    finally:
        del model.letters.put
    assert [event.where for event in events if isinstance(event, DeadLettered)] == ["lost"] * 4
    assert "a request is lost" in caplog.text and "prompt" not in caplog.text


def test_no_credential_is_in_a_letter(where: str):
    """Keys of the client, of the call, of a URL and of a header stay out of the file."""
    with FaultServer() as server:
        server.always(Fault.status(503))
        model = keeping(where, instance(server, "openai", api_key="sk-planted-1"))
        with pytest.raises(Exception, match=r".*"):
            model.invoke(
                "hi", extra_headers={"Authorization": "Bearer sk-planted-2"}, extra_body={"api_key": "sk-planted-3"}
            )
        ((_, letter),) = model.letters.letters()
    raw = b"".join(file.read_bytes() for file in Path(where).parent.iterdir())
    assert letter.content is not None and b"planted" not in raw


@pytest.mark.parametrize("given", [7, ["a"], {"where": True}, object()])
def test_what_is_no_place_is_refused(given: Any):
    """Anything else than a place is an error that names the field, and quotes nothing."""
    with pytest.raises(SettingsError, match=r"dead_letters: got '\w+'; give True, a path"):
        resilient(scripted(), dead_letters=given)


def test_a_file_says_it_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`from_yaml` takes one word, or a mapping of all settings."""
    monkeypatch.chdir(tmp_path)
    for number, told in enumerate(["a.db", {"where": str(tmp_path / "b.db"), "most_bytes": 1000}]):
        path = tmp_path / f"{number}.yaml"
        path.write_text(json.dumps({"providers": ["ollama:llama3.1"], "dead_letters": told}))
        model = ResilientChatModel.from_yaml(path, namespace=fresh())
        assert model.dead_letters == (told if isinstance(told, str) else DeadLetters(**told))


def test_an_unknown_setting_of_a_replay(where: str):
    """A word that `replay` does not know is named with the nearest right one."""
    with pytest.raises(SettingsError, match=r"concurency.*concurrency"):
        keeping(where).replay(concurency=2)


async def test_a_key_that_is_none(where: str):
    """An idempotency key that is no text is refused by name."""
    with pytest.raises(SettingsError, match=r"configurable\.idempotency_key: got 'int'"):
        await ask(keeping(where), "invoke", config={"configurable": {"idempotency_key": 7}})


def test_ctrl_c_ends_a_replay_that_waits(where: str):
    """Interrupted, `replay(wait=True)` raises before the provider that hangs has answered; the letter is given back uncounted."""
    asked, gone = threading.Event(), threading.Event()

    def hang(_: Any) -> str:
        asked.set()
        gone.wait(60)
        raise BusyError

    model = keeping(where, scripted("one", BusyError(), hang))
    assert model_fails(model, "hi")

    def interrupt() -> None:
        asked.wait(60)
        signal.pthread_kill(main, signal.SIGINT)

    main = threading.get_ident()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    helper = threading.Thread(target=interrupt)
    helper.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            model.replay(wait=True)
    finally:
        gone.set()
        helper.join()
        signal.signal(signal.SIGINT, before)
    ((state, letter),) = model.letters.letters()
    assert (state, letter.deliveries) == ("waiting", 0)


@pytest.mark.parametrize("way", WAYS)
async def test_what_can_t_even_be_read_changes_nothing_for_the_caller(
    where: str, way: str, monkeypatch: pytest.MonkeyPatch
):
    """A message that LangChain itself can't turn into JSON is lost aloud, and the caller hears what the provider said."""

    def broken(messages: Any) -> Any:
        raise RuntimeError("planted")

    events: list[Any] = []
    monkeypatch.setattr("langchain_resilient.letters.messages_to_dict", broken)
    model = keeping(where, scripted("one", BusyError()), observers=[events.append])
    error = await failure(model, way)
    assert "planted" not in repr(error) and "could not be kept" in error.__notes__[-1]
    assert [event.where for event in events if isinstance(event, DeadLettered)] == ["lost"]
