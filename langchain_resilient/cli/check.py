"""`check`: validate settings, show what holds, and what each kind of failure would lead to.

Rules of this file: it gathers and lays out; what would happen is played in `rehearsal`, put into words in `foretold`; what makes little
sense is in `advice`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import RenderableType
from rich.text import Text

from langchain_resilient.cli import foretold, sources
from langchain_resilient.cli.advice import advice
from langchain_resilient.cli.chat import promptly
from langchain_resilient.cli.failures import CommandFailed, usage_error
from langchain_resilient.cli.layout import pairs, warned
from langchain_resilient.cli.ping import Pinged, ping_all
from langchain_resilient.cli.rehearsal import Act, rehearse
from langchain_resilient.cli.session import Session, indented
from langchain_resilient.cli.wording import duration, number
from langchain_resilient.engine.policy import Policy, Target
from langchain_resilient.engine.quota import RateLimits
from langchain_resilient.identity import endpoint_of

EVERY = {
    "rpm": "requests a minute", "tpm": "tokens a minute", "itpm": "input tokens a minute", "otpm": "output tokens a minute",
    "rpd": "requests a day", "tpd": "tokens a day", "concurrency": "at a time",
}  # fmt: skip
"""A limit, in words."""
ON_LIMIT = {"next": "then the next provider", "wait": "then wait up to {}", "reject": "then RateLimitedError"}


class Checked(NamedTuple):
    """What there is to say."""

    source: str
    policy: Policy
    warnings: list[str]
    acts: tuple[Act, ...]
    pings: list[Pinged] | None


def inspect(
    session: Session, providers: Sequence[str], config: Path | None, file: Path | None, ping: float | None
) -> None:
    """Do what was typed; `ping` is its deadline in seconds. Raises `CommandFailed` or `SettingsError`."""
    if config is not None and file is not None:
        raise usage_error("give the configuration file once")
    if ping is not None and not ping > 0:
        raise usage_error(f"--deadline: got {ping:g}; give seconds > 0")
    chosen = sources.source(session, providers, file or config, os.environ)
    with session.holding_back():
        settings = sources.settings_of(session, chosen)
        model = sources.build(session, settings)
        policy = sources.policy_of(model)
        missing = [f"{name}: no key was found for it" for name in sources.keyless(model)]
        pings = None
        if ping is not None:
            pings = promptly(ping_all(session, settings, ping))
    warnings = [*missing, *advice(policy), *session.told()]
    checked = Checked(str(chosen), policy, [session.redactor.line(text) for text in warnings], rehearse(policy), pings)
    failed = [pinged for pinged in pings or () if not pinged.ok]
    if not session.wants_json:
        session.show(*_page(checked, session.width))
    elif not failed:
        session.document(_document(checked))
    if failed:
        said = "; ".join(f"{pinged.provider}: {pinged.outcome}" for pinged in failed)
        message = f"{len(failed)} of {len(pings or ())} providers did not answer the ping: {said}"
        raise CommandFailed(message, kind="ping_failed", document=_document(checked))


# ------------------------------------------------------------------------------------------------------------ as a page
def _page(checked: Checked, width: int) -> list[RenderableType]:
    policy, many = checked.policy, len(checked.policy.targets)
    order = "in this order" if policy.routing == "priority" else f'by routing "{policy.routing}"'
    asked = f"asked {order}, " if many > 1 else ""
    page: list[RenderableType] = [
        Text.assemble(
            ("valid", "bold green"),
            f": {many} provider{'s' if many > 1 else ''}, {asked}at most {duration(policy.total)} a request",
        )
    ]
    settings = [_settings(policy, target) for target in policy.targets]
    common = {name: text for name, text in settings[0].items() if all(each.get(name) == text for each in settings)}
    for place, (target, own) in enumerate(zip(policy.targets, settings, strict=True), 1):
        page += ["", Text.assemble((f"{place}  ", "dim"), (target.name, "bold"))]
        page.append(indented(pairs([pair for pair in own.items() if many == 1 or pair[0] not in common], width), 3))
    if many > 1 and common:
        page += ["", Text("All of them", style="bold"), indented(pairs(list(common.items()), width), 3)]
    page += warned(checked.warnings)
    for table in foretold.tables(checked.acts):
        page += [
            "",
            Text(table.title, style="bold"),
            indented(pairs([(_failures(row), row.leads_to) for row in table.rows], width)),
        ]
    if checked.pings is not None:
        page += ["", Text("Ping", style="bold"), indented(pairs([_pong(pinged) for pinged in checked.pings], width))]
    return page


def _failures(row: foretold.Row) -> Text:
    lines = [Text.assemble(kind, (f" ({example})", "dim")) for kind, example in row.failures]
    return Text("\n").join(lines)


def _pong(pinged: Pinged) -> tuple[Text | str, Text | str]:
    said = f"  {pinged.message}" if pinged.message else ""
    return pinged.provider, Text.assemble(
        (pinged.outcome, "green" if pinged.ok else "red"), f"  {duration(pinged.seconds)}", (said, "dim")
    )


def _settings(policy: Policy, target: Target) -> dict[str, str]:
    """What holds for one provider, by name."""
    circuit, price = target.circuit, target.price
    found = {
        "at": endpoint_of(target.client.model),
        "limits": _limits(target.limits),
        "circuit": f"opens after {circuit.failure_threshold} failures in a row, or {circuit.failure_rate:.0%} of at least "
        f"{circuit.minimum_calls} calls in {duration(circuit.window)}; tried again after {duration(circuit.recovery_timeout)}",
        "timeouts": f"{duration(target.first_token)} to the first token, {duration(target.idle)} between tokens, "
        f"{duration(target.response(None))} for an unstreamed answer",
    }
    if target.max_latency is not None:
        found["latency"] = f"asked after faster ones while its p50 is above {duration(target.max_latency)}"
    if price is not None:
        found["price"] = f"${price.input:g} in, ${price.output:g} out per million tokens"
    if policy.routing == "weighted":
        found["weight"] = f"{target.weight:g}"
    return {name: text for name, text in found.items() if text}


def _limits(limits: RateLimits) -> str:
    found = [
        f"{number(value)} {words}" for name, words in EVERY.items() if (value := getattr(limits, name)) is not None
    ]
    if limits.usd_per_day is not None:
        found.append(f"${limits.usd_per_day:g} a day")
    if not found:
        return ""
    return f"{', '.join(found)}; {ON_LIMIT[limits.on_limit].format(duration(limits.max_wait))}"


# -------------------------------------------------------------------------------------------------------- as a document
def _document(checked: Checked) -> dict[str, Any]:
    policy = checked.policy
    return {
        "valid": True,
        "source": checked.source,
        "routing": policy.routing,
        "total": policy.total,
        "providers": [_target_as_dict(target) for target in policy.targets],
        "warnings": checked.warnings,
        "failures": [foretold.as_dict(act) for act in checked.acts],
        "pings": None if checked.pings is None else [pinged._asdict() for pinged in checked.pings],
    }


def _target_as_dict(target: Target) -> Mapping[str, Any]:
    return {
        "name": target.name,
        "endpoint": endpoint_of(target.client.model) or None,
        "priority": target.priority,
        "weight": target.weight,
        "max_latency": target.max_latency,
        "price": _as_dict(target.price),
        "limits": _as_dict(target.limits),
        "circuit": _as_dict(target.circuit),
        "timeouts": {
            "connect": target.timeouts.connect,
            "first_token": target.first_token,
            "idle": target.idle,
            "response": target.response(None),
        },
    }


def _as_dict(settings: Any) -> Mapping[str, Any] | None:
    return None if settings is None else asdict(settings)
