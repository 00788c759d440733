"""What is valid and still makes little sense: settings that cancel each other out, or that no request will ever meet.

Rules of this file: pure; each rule is a small function that yields one sentence, with what to do about it; nothing here refuses anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from langchain_resilient.cli.wording import duration, listed
from langchain_resilient.engine.policy import Policy, Target
from langchain_resilient.engine.quota import RateLimits
from langchain_resilient.identity import endpoint_of

Rule = Callable[[Policy], Iterator[str]]


def advice(policy: Policy) -> list[str]:
    """Every warning, in the order of the rules."""
    return [sentence for rule in RULES for sentence in rule(policy)]


def _alone(policy: Policy) -> Iterator[str]:
    if len(policy.targets) == 1:
        yield f"{policy.targets[0].name} is the only provider: when it fails, nobody else answers"


def _one_machine(policy: Policy) -> Iterator[str]:
    homes: dict[str, list[str]] = {}
    for target in policy.targets:
        home = endpoint_of(target.client.model).partition("/")[0]
        homes.setdefault(home, []).append(target.name)
    for home, names in homes.items():
        if home and len(names) == len(policy.targets) > 1:
            yield f"{listed(names)} are all at {home}: an outage there is everybody's"


def _inner_retries(policy: Policy) -> Iterator[str]:
    for target in policy.targets:
        least = 1 if type(target.client.model).__module__.startswith("langchain_google") else 0
        retries = getattr(target.client.model, "max_retries", None)
        if isinstance(retries, int) and retries > least:
            yield (
                f"{target.name}: its client retries {retries} times by itself, inside every attempt and unseen: "
                f"leave max_retries out of its model_kwargs"
            )


def _deadline(policy: Policy) -> Iterator[str]:
    for target in policy.targets[:-1]:
        if target.first_token >= policy.total:
            yield (
                f"{target.name}: silence may last {duration(target.first_token)} (timeouts.first_token), as long as the whole request "
                f"(total {duration(policy.total)}): nobody else is asked in time"
            )
        elif target.response(None) >= policy.total:
            yield (
                f"{target.name}: an unstreamed answer may take {duration(target.response(None))} (timeouts.response), as long as the "
                f"whole request (total {duration(policy.total)}): nobody else is asked in time"
            )


def _latency(policy: Policy) -> Iterator[str]:
    for target in policy.targets:
        slow, limit = target.circuit.slow_first_token, target.response(None)
        if target.max_latency is not None and target.max_latency >= limit:
            yield f"{target.name}: max_latency {duration(target.max_latency)} is never reached: answers are cut at {duration(limit)}"
        if slow is not None and slow >= limit:
            yield f"{target.name}: circuit.slow_first_token {duration(slow)} is never reached: answers are cut at {duration(limit)}"


def _limits(policy: Policy) -> Iterator[str]:
    for target in policy.targets:
        limits = target.limits
        if limits.rpm is not None and limits.burst is not None and limits.burst > limits.rpm:
            yield f"{target.name}: a burst of {limits.burst} is more than its {limits.rpm} requests a minute"
        if limits.on_limit != RateLimits().on_limit and not target.dimensions and limits.concurrency is None:
            yield f'{target.name}: on_limit "{limits.on_limit}" has no limit to act on: set rpm, tpm or another'
        if limits.max_wait > policy.total:
            yield (
                f"{target.name}: max_wait {duration(limits.max_wait)} is longer than a request may take ({duration(policy.total)})"
            )


def _circuit(policy: Policy) -> Iterator[str]:
    for target in policy.targets:
        circuit = target.circuit
        if circuit.recovery_growth > 1 and circuit.recovery_cap <= circuit.recovery_timeout:
            yield f"{target.name}: circuit.recovery_growth has no room to grow: recovery_cap is not above recovery_timeout"
        if circuit.window < target.first_token:
            yield (
                f"{target.name}: circuit.window {duration(circuit.window)} is shorter than a silent call "
                f"({duration(target.first_token)}): failure_rate never sees enough of them"
            )


def _retry(policy: Policy) -> Iterator[str]:
    retry = policy.retry
    if retry.base_delay > retry.max_delay:
        yield f"retry.base_delay {duration(retry.base_delay)} is cut to max_delay {duration(retry.max_delay)}"
    if retry.max_retry_after > retry.max_delay:
        yield f"retry.max_retry_after {duration(retry.max_retry_after)} is above max_delay {duration(retry.max_delay)}"


def _routing(policy: Policy) -> Iterator[str]:
    targets = policy.targets
    unpriced = [target.name for target in targets if target.price is None]
    if policy.routing == "cost" and unpriced:
        yield f'routing "cost" takes {listed(unpriced)} for free: set price or cost_per_1k'
    if policy.routing == "weighted" and len({target.weight for target in targets}) == 1 and len(targets) > 1:
        yield 'routing "weighted" spreads evenly: all weights are the same'
    if policy.routing != "weighted" and any(_is_weighted(target) for target in targets):
        yield f'weights are not looked at: routing is "{policy.routing}"'


def _is_weighted(target: Target) -> bool:
    return target.weight != 1.0


RULES: tuple[Rule, ...] = (
    _alone, _one_machine, _inner_retries, _deadline, _latency, _limits, _circuit, _retry, _routing,
)  # fmt: skip
