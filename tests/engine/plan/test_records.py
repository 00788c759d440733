"""What a request leaves on record: its decision, and the events that observers are told."""

from dataclasses import replace

import pytest

from langchain_resilient.engine.backoff import Retry
from langchain_resilient.engine.errors import InvalidOutputError
from langchain_resilient.engine.events import (
    AdmissionRefused,
    Admitted,
    Attempt,
    Attempted,
    CircuitChanged,
    CredentialBlocked,
    Decided,
    Decision,
    FellBack,
    RateLimited,
    Refusal,
    Retried,
    Usage,
)
from langchain_resilient.engine.observe.fanout import Fanout
from langchain_resilient.engine.policy import Policy, Price
from langchain_resilient.engine.quota import RateLimits
from tests.engine.harness import NEVER, Chunk, Step, status, target


def test_the_record_of_a_healthy_request(world):
    """Who answered, in how many seconds, at what price; nothing else happened."""
    w = world({"a": [Step(Chunk("hello", usage=Usage(1000, 200)), 2.0)]}, [target("a", price=Price(3.0, 15.0))])
    told = []
    decision = w.ask(tenant="acme", lane="batch", told=told.append).decision
    assert decision == Decision(
        request_id=1,
        provider="a",
        first_choice="a",
        outcome="answered",
        seconds=2.0,
        first_token=None,
        attempts=(Attempt("a", "ok", 2.0),),
        refusals=(),
        circuit="closed",
        fallback=False,
        usage=Usage(1000, 200),
        cost=pytest.approx(0.006),  # 1000 · 3 $/M + 200 · 15 $/M
        stream=False,
        lane="batch",
        tenant="acme",
    )
    assert told == [decision]


def test_a_record_prints_as_plain_words(world):
    """The kind of a failed attempt is a word: an enum member would print as `<ErrorKind.OVERLOADED: 'overloaded'>`."""
    decision = world({"a": [status(503)], "b": ["hello"]}).ask().decision
    assert repr([attempt.kind for attempt in decision.attempts]) == "['overloaded', 'ok']"


def test_the_record_of_an_eventful_request(world):
    """Every attempt with its kind, seconds, wait, limit and status, and who was refused."""
    script = {"a": [Step(status(500), 1.0)], "b": [NEVER], "c": ["hello"], "d": [Step("from d", 2.0)]}
    w = world(script, retry=Retry())
    w.store.override(w["c"], "forced_open")
    decision = w.ask().decision
    assert decision.attempts == (
        Attempt("a", "server_error", 1.0, status=500),
        Attempt("a", "server_error", 1.0, wait=0.25, status=500),
        Attempt("b", "timeout", 60.0, limit="response"),
        Attempt("d", "ok", 2.0),
    )
    assert (decision.provider, decision.first_choice, decision.fallback) == ("d", "a", True)
    assert decision.seconds == 64.25


def test_the_record_of_a_failed_request(world):
    """Nobody answered: no provider, no usage, and the refusal of the one that was not tried."""
    w = world({"a": [status(401)], "b": ["hello"]})
    w.open("b")
    decision = w.ask().decision
    assert (decision.provider, decision.outcome, decision.usage, decision.cost) == (None, "failed", None, None)
    assert decision.refusals == (Refusal("b", "circuit_open", 60.0),)
    assert not decision.fallback


def test_the_record_of_a_probe(world):
    """The attempt says that it was one, and the circuit's state is the one after it."""
    w = world({"a": ["hello"]})
    w.open("a", seconds=61.0)
    decision = w.ask().decision
    assert (decision.attempts, decision.circuit) == ((Attempt("a", "ok", 0.0, probe=True),), "half_open")


def test_each_request_is_told_once(world):
    """However it ends, there is one record of it."""
    w = world({"a": ["hello", status(400), status(401), "x"]})
    for _ in range(4):
        w.ask()
    assert [decision.outcome for decision in w.decisions] == ["answered", "failed", "failed", "refused"]
    assert [decision.request_id for decision in w.decisions] == [1, 2, 3, 4]


def test_the_events_of_a_fallback(world):
    """Exactly these, in this order."""
    w = world({"a": [Step(status(500), 1.0)], "b": [Step(Chunk("from b", usage=Usage(5, 6)), 2.0)]})
    outcome = w.ask()
    assert w.events == [
        Admitted("a", probe=False, waited=0.0),
        Attempted("a", "server_error", 1.0, None, None, probe=False),
        Admitted("a", probe=False, waited=0.25),
        Retried("a", "server_error", 0.25),
        Attempted("a", "server_error", 1.0, None, None, probe=False),
        Admitted("b", probe=False, waited=0.0),
        FellBack("a", "b", "server_error"),
        Attempted("b", "ok", 2.0, None, Usage(5, 6), probe=False),
        Decided(outcome.decision),
    ]


@pytest.mark.parametrize("unsure", [False, True])
def test_when_a_fallback_is_told(world, unsure):
    """Before it is asked; but where a candidate may turn out to be none, not before it is known that it was asked."""
    w = world({"a": [status(500)], "b": ["from b"]}, retry=Retry(max_retries=0), unsure=unsure)
    asked = {}
    w.policy = replace(
        w.policy, observe=lambda event: (asked.setdefault(type(event), [*w.asked]), w.events.append(event))
    )
    assert w.ask().text == "from b"
    assert asked[FellBack] == (["a", "b"] if unsure else ["a"])


def test_the_events_of_a_refusal(world):
    """The provider's 429 is told once, when it comes; that we keep to it later is a refusal, not another limit hit."""
    w = world({"a": [status(429, retry_after=30)]}, retry=Retry(max_retries=0))
    w.ask()
    w.ask()
    assert w.events == [
        Admitted("a", probe=False, waited=0.0),
        Attempted("a", "rate_limited", 0.0, None, None, probe=False),
        RateLimited("a", "provider", "429"),
        Decided(w.decisions[0]),
        AdmissionRefused((Refusal("a", "blocked", 30.0),)),
        Decided(w.decisions[1]),
    ]


def test_the_events_of_a_circuit_and_of_a_credential(world):
    """Changes are told by the request whose report made them."""
    w = world({"a": [*[status(503)] * 5, "hello"], "b": [status(401)]}, retry=Retry(max_retries=0))
    for _ in range(6):
        w.ask()
    assert [event for event in w.events if isinstance(event, CircuitChanged | CredentialBlocked)] == [
        CredentialBlocked("b", "auth", 300.0),
        CircuitChanged("a", "closed", "open", "overloaded"),
    ]


def test_admitted_is_made_for_those_who_listen(world):
    """The event of every healthy request is not made for nobody."""
    w = world({"a": ["hello"]})
    w.policy.__dict__["heard"] = frozenset()
    w.ask()
    assert w.told(Admitted) == []


def test_an_observer_that_raises_breaks_no_call(world):
    """Whatever it raises, at whichever event, the request goes its way, and the others are told."""
    w = world({"a": [status(500)], "b": ["from b"]})

    def broken(event):
        raise RuntimeError("observer")

    seen = w.events
    w.policy.__dict__["observe"] = Fanout([broken, seen.append])
    assert w.ask().text == "from b"
    assert (len(seen), w.left_over()) == (9, {})


def test_nothing_on_record_holds_the_conversation(world):
    """No event names what was asked or answered, nor an exception's text."""
    w = world({"a": [Exception("the secret of the prompt")], "b": ["the secret of the answer"]})
    w.ask()
    assert "secret" not in repr(w.events)


def test_cost_is_unknown_without_price_or_usage(world):
    """None, never 0: a zero would read as free."""
    w = world({"a": ["hello"]}, [target("a", price=Price(3.0, 15.0))])
    assert w.ask().decision.cost is None
    w = world({"a": [Chunk("hello", usage=Usage(1, 1))]})
    assert w.ask().decision.cost is None


PRICED = [target("a", price=Price(10.0, 10.0)), target("b", price=Price(1.0, 1.0))]


def test_each_attempt_tells_what_it_cost(world):
    """By its own provider's price, whether its answer was seen or not: of two legs of one answer each has its own."""
    broken = (Chunk("one ", usage=Usage(1000, 0)), Chunk("two ", usage=Usage(0, 100)), status(500))
    w = world({"a": [broken], "b": [(Chunk("three", usage=Usage(100, 10)), Chunk(finish="stop"))]}, PRICED)
    decision = w.ask(stream=True).decision
    assert [(one.provider, one.usage, one.cost) for one in w.told(Attempted)] == [
        ("a", Usage(1000, 100), pytest.approx(0.011)),
        ("b", Usage(100, 10), pytest.approx(0.00011)),
    ]
    assert decision.cost == pytest.approx(0.01111)


def test_what_an_unreadable_answer_used_is_told(world):
    """It was paid for."""
    unread = InvalidOutputError("no JSON", usage=Usage(1000, 500))
    w = world({"a": [unread], "b": ["hello"]}, PRICED)
    w.ask()
    assert (w.told(Attempted)[0].usage, w.told(Attempted)[0].cost) == (Usage(1000, 500), pytest.approx(0.015))


@pytest.mark.parametrize("whole", [False, True])
def test_a_stream_s_attempt_takes_until_its_end(world, whole):
    """On record as in its event; and an answer that was streamed inside alone is no stream to its caller."""
    chunks = (Chunk("x"), Chunk("y", after=4.0), Chunk(finish="stop"))
    w = world({"a": [Step(chunks, 1.0)]})
    decision = w.ask(stream=True, whole=whole).decision
    assert decision.attempts == (Attempt("a", "ok", 5.0),)
    assert (w.told(Attempted)[0].seconds, decision.stream) == (5.0, not whole)


def test_the_circuit_on_record_is_the_answering_providers(world):
    """Not that of a loser whose end was reported later."""
    w = world({"a": ["from a"], "b": [Step("from b", 5.0)]})
    w.open("a", seconds=61.0)
    decision = w.ask().decision
    assert (decision.provider, decision.circuit) == ("a", w.circuit("a"))
    assert decision.circuit == "half_open"


def test_an_attempt_whose_caller_went_away_is_told(world):
    """A stream that was closed, and a call that was cancelled: each admitted attempt ends as an Attempted."""
    w = world({"a": [(Chunk("one"), Chunk("two", after=1.0), Chunk(finish="stop"))]})
    decision = w.ask(stream=True, keep=1).decision
    assert [(one.provider, one.kind) for one in w.told(Attempted)] == [("a", "cancelled")]
    assert decision.outcome == "cancelled"
    w = world({"a": ["hello"]})
    w.interrupt = (1, KeyboardInterrupt())
    decision = w.ask().decision
    assert [one.kind for one in decision.attempts] == [one.kind for one in w.told(Attempted)]
    assert decision.outcome == "cancelled" and len(w.told(Admitted)) == len(w.told(Attempted))


def test_latency_routing_sticks_to_its_last_choice(world):
    """The first choice is kept per kind of request for the next one's hysteresis."""
    w = world({"a": [Step("x", 2.0)], "b": [Step("y", 1.0)]}, routing="latency")
    for _ in range(4):
        w.ask()
    assert w.asked == ["a", "b", "b", "b"]
    assert w.policy.first_choices == {False: 1}


def test_cost_routing(world):
    """The cheapest is asked first, and counts as the first choice."""
    targets = [target("a", price=Price(3.0, 15.0)), target("b", price=Price(1.0, 5.0))]
    w = world({"a": ["from a"], "b": ["from b"]}, targets, routing="cost")
    decision = w.ask().decision
    assert (decision.provider, decision.first_choice, decision.fallback) == ("b", "b", False)


def test_a_limit_of_our_own_is_told(world):
    """A request that our limits turn away counts as a rate limit met, by its dimension."""
    w = world({"a": ["hello"]}, [target("a", limits=RateLimits(rpm=1, on_limit="reject"))])
    w.ask()
    w.ask()
    assert w.told(RateLimited) == [RateLimited("a", "client", "rpm")]
    assert isinstance(w.policy, Policy)


def test_a_limit_that_sends_a_request_on_is_told(world):
    """Passing a full provider by is in the record, and counts as a limit hit, though the request was answered elsewhere."""
    w = world({"a": ["from a"], "b": ["from b"]}, [target("a", limits=RateLimits(rpm=1, burst=1)), target("b")])
    assert [w.ask().text, w.ask().text] == ["from a", "from b"]
    assert w.decisions[0].refusals == ()
    assert w.decisions[1].refusals == (Refusal("a", "rpm", 60.0),)
    assert w.told(RateLimited) == [RateLimited("a", "client", "rpm")]


def test_the_record_says_who_was_passed_over(world):
    """An open circuit ranks last: nobody asks it, and the record tells why."""
    w = world({"a": ["from a"], "b": ["from b"]})
    w.open("a")
    w.ask()
    assert (w.decisions[-1].fallback, w.decisions[-1].refusals) == (True, (Refusal("a", "circuit_open"),))
