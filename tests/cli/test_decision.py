"""A decision record as people read it."""

import io
import json

from rich.console import Console

from langchain_resilient.cli.decision import as_dict, drawn
from langchain_resilient.engine.events import Attempt, Decision, Refusal, Usage

DECISION = Decision(
    request_id=1, provider="b", first_choice="a", outcome="answered", seconds=1.94, first_token=0.61,
    attempts=(
        Attempt("a", "timeout", 12.0, limit="first_token"), Attempt("a", "server_error", 0.2, wait=0.4, status=500),
        Attempt("b", "ok", 0.61, probe=True),
    ),
    refusals=(Refusal("c", "circuit_open", 12.3), Refusal("d", "forced_open")), circuit="closed", fallback=True,
    usage=Usage(12, 340), cost=0.00412, stream=True, lane="interactive", tenant=None,
)  # fmt: skip


def shown(decision: Decision, width: int = 80) -> list[str]:
    """Its lines on a console without colours."""
    console = Console(file=io.StringIO(), width=width)
    console.print(drawn(decision, width))
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_the_record_tells_who_how_and_why():
    """Who answered instead of whom, every attempt with its limit, status and wait, who was not asked, and what it cost."""
    assert shown(DECISION) == [
        "b answered in 1.9 s, first token after 0.6 s, instead of a",
        "  a  timeout (first_token)  12 s",
        "  a  server_error 500       0.2 s, asked after 0.4 s",
        "  b  ok                     0.6 s, a probe",
        "  c  not asked              circuit_open, for 12 s",
        "  d  not asked              forced_open",
        "  12 tokens in, 340 out, $0.0041",
    ]


def test_the_record_of_a_continued_answer():
    """How often somebody went on with it, whether or not it came to its end; and that a second provider was asked beside a late one."""
    assert shown(DECISION._replace(continued=1, fallback=False))[0].endswith("0.6 s, continued once")
    assert shown(DECISION._replace(continued=2))[0].endswith("instead of a, continued 2 times")
    broken = DECISION._replace(provider=None, outcome="interrupted", first_token=None, fallback=False, continued=1)
    assert shown(broken)[0] == "the stream broke after 1.9 s, continued once"
    assert shown(DECISION._replace(hedged=True, fallback=False))[0].endswith("0.6 s, hedged")


def test_the_record_of_a_failure():
    """Where nobody answered it says how it ended; what is not known is not shown."""
    failed = DECISION._replace(
        provider=None, outcome="refused", attempts=(), usage=None, first_token=None, fallback=False
    )
    assert shown(failed)[0] == "nobody could be asked after 1.9 s"
    assert shown(DECISION._replace(cost=None))[-1] == "  12 tokens in, 340 out"


def test_a_narrow_terminal_gets_all_of_it():
    """At 30 columns nothing is cut off."""
    text = "".join(shown(DECISION._replace(provider="a-provider/with-a-long-name"), 30)).replace(" ", "")
    for word in ("first_token", "circuit_open", "a-provider/with-a-long-name", "server_error5000.2s,askedafter0.4s"):
        assert word in text


def test_the_document_is_json():
    """The record goes into JSON as it is."""
    content = json.loads(json.dumps(as_dict(DECISION)))
    assert (
        content["attempts"][1].items() >= {"provider": "a", "kind": "server_error", "wait": 0.4, "status": 500}.items()
    )
    assert content["refusals"][0]["reason"] == "circuit_open"
    assert content["usage"]["output"] == 340
