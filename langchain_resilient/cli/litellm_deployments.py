"""One of LiteLLM's deployments as one of our providers.

Rules of this file: pure, and of plain values; what a provider's words are is in `litellm_words`. A literal secret becomes a variable.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any, NamedTuple

from langchain_resilient.cli.litellm_reading import (
    Hidden,
    Remarks,
    Section,
    first,
    lines,
    mapping,
    number,
    text,
    texts,
    unfit,
    whole,
    words,
    yes_or_no,
)
from langchain_resilient.cli.litellm_words import (
    ARGUMENTS,
    ARGUMENTS_OF,
    ASKED_OF_THE_ENVIRONMENT,
    CHAT_MODES,
    COMPATIBLE,
    ENDPOINTS,
    GUESSES,
    KEYS,
    OF_ANOTHER_CLIENT,
    RENAMED,
    ROUTES,
    WEIGHTS,
    WORDS,
)

POSITIVE = partial(number, above=0)
COUNT = partial(whole, least=1)
READERS: dict[str, Callable[[Any], Any]] = {
    "number": partial(number, least=0), "any number": number, "share": partial(number, least=0, most=1), "whole": whole,
    "count": COUNT, "text": text, "words": words, "yes or no": yes_or_no, "mapping": mapping, "texts": texts,
}  # fmt: skip
"""How a kind of `litellm_words.ARGUMENTS` is read."""
LIMITS = {"rpm": "rpm", "tpm": "tpm", "max_parallel_requests": "concurrency"}
PRICES = {
    "input_cost_per_token": "input", "output_cost_per_token": "output", "cache_read_input_token_cost": "cached_input",
}  # fmt: skip
TIMEOUTS = {"timeout": ("response",), "stream_timeout": ("first_token", "idle")}
"""LiteLLM's two limits are between two bytes: in an unstreamed answer that is the wait for it, in a stream each silence."""
MILLION = 1_000_000


class Spec(NamedTuple):
    """Which model is asked, and where."""

    word: str
    """LangChain's for the provider."""
    prefix: str
    """LiteLLM's."""
    model: str

    def __str__(self) -> str:
        return f"{self.word}:{self.model}"


class Deployment(NamedTuple):
    """An entry of `model_list`, in its place behind the group that is asked first."""

    place: str
    rung: int
    """0 for the group itself, then its fallback groups."""
    entry: Mapping[str, Any]
    model: str
    """Its `litellm_params.model`, with what a wildcard stands for."""


class Carried(NamedTuple):
    """A deployment that has become a provider."""

    spec: Spec
    id: str | None
    rank: tuple[int, float]
    """Lower is asked earlier: the group's place, then LiteLLM's `order`."""
    weights: Mapping[str, float]
    """What its share may be reckoned by."""
    settings: dict[str, Any]


class Variables:
    """The names under which the new file asks for what was a literal secret.

    Args:
        taken: Names that the file uses for something else.
    """

    def __init__(self, taken: Collection[str]) -> None:
        self._taken = set(taken)
        self._names: dict[tuple[str, int], str] = {}

    def of(self, base: str, secret: Hidden) -> str:
        """One name for each secret: `base`, or `base_2` and so on where that is another's."""
        key = (base, secret.number)
        if key not in self._names:
            names = [base, *(f"{base}_{count}" for count in range(2, len(self._taken) + 3))]
            self._names[key] = next(name for name in names if name not in self._taken)
            self._taken.add(self._names[key])
        return self._names[key]


def spec_of(model: str, provider: str | None) -> Spec | None:
    """Which model LiteLLM would ask; None where its provider has no word in LangChain."""
    prefix, slash, name = model.partition("/")
    if provider is not None:
        prefix, name = provider, model.removeprefix(f"{provider}/")
    elif not slash or prefix not in WORDS:
        prefix, name = next((whose for begin, whose in GUESSES if model.startswith(begin)), ""), model
    if prefix not in WORDS or not name:
        return None
    for route in ROUTES.get(prefix, ()):
        name = name.removeprefix(route) or name
    word = WORDS[prefix]
    word = next((own for (of, begin), own in OF_ANOTHER_CLIENT.items() if of == word and name.startswith(begin)), word)
    return Spec(word, prefix, name)


def carried(
    deployment: Deployment, variables: Variables, defaults: Mapping[str, Mapping[str, Any]], remarks: Remarks
) -> Carried | None:
    """The provider that a deployment becomes; None where it can't be one, which is remarked on.

    Args:
        deployment: It.
        variables: Names for literal secrets.
        defaults: The `timeouts` and the `circuit` of all, which a provider's own replace as a whole.
        remarks: Where to say what is not carried.
    """
    entry = Section(deployment.place, deployment.entry, remarks)
    params = Section(f"{entry.place}.litellm_params", entry.content["litellm_params"], remarks)
    info = Section(f"{entry.place}.model_info", entry.take("model_info", lines) or {}, remarks)
    entry.pass_over("model_name", "litellm_params")
    params.pass_over("model")
    spec = _spec(deployment, params, info)
    if spec is None:
        return None
    everywhere = (params, entry, info)
    timeouts = _by(params, TIMEOUTS, POSITIVE)
    cooldown = first((params, info), "cooldown_time", partial(number, least=1e-6))
    settings = {
        "model": str(spec),
        "model_kwargs": _arguments(spec, params, variables),
        "limits": {
            ours: found for name, ours in LIMITS.items() if (found := first(everywhere, name, COUNT)) is not None
        },
        "price": _price(params, info),
        "timeouts": {**defaults["timeouts"], **timeouts} if timeouts else {},
        "circuit": {**defaults["circuit"], "recovery_timeout": cooldown} if cooldown is not None else {},
        "context_window": first((info, params), "max_input_tokens", COUNT),
    }
    order = first((params, info), "order", number)
    weight = params.take("weight", partial(number, least=0))
    weights = {"weight": weight, "rpm": settings["limits"].get("rpm"), "tpm": settings["limits"].get("tpm")}
    own = info.take("id", text)
    for section in everywhere:
        section.leave_rest()
    return Carried(
        spec, own, (deployment.rung, float("inf") if order is None else order),
        {name: weights[name] for name in WEIGHTS if weights[name] is not None},
        {name: value for name, value in settings.items() if value not in ({}, None)},
    )  # fmt: skip


def _spec(deployment: Deployment, params: Section, info: Section) -> Spec | None:
    mode, spec = info.take("mode", text), spec_of(deployment.model, params.take("custom_llm_provider", text))
    if mode not in CHAT_MODES:
        info.remark("mode", f"the deployment is left out: {mode!r} is nothing that a chat model is asked for")
        return None
    if "*" in deployment.model:
        params.remark("model", "the deployment is left out: a wildcard stands for no one model")
        return None
    if spec is None:
        params.remark(
            "model",
            f"the deployment is left out: LangChain has no word for the provider of {deployment.model!r}; give the model itself, "
            f"in Python",
        )
    return spec


def _by(section: Section, names: Mapping[str, tuple[str, ...]], read: Callable[[Any], Any]) -> dict[str, Any]:
    found = {name: section.take(name, read) for name in names}
    return {ours: value for name, value in found.items() if value is not None for ours in names[name]}


def timeouts_of(sections: tuple[Section, ...]) -> dict[str, float]:
    """The time limits for all providers."""
    found = {name: first(sections, name, POSITIVE) for name in TIMEOUTS}
    return {ours: value for name, value in found.items() if value is not None for ours in TIMEOUTS[name]}


def _price(params: Section, info: Section) -> dict[str, float]:
    found = {ours: first((params, info), name, partial(number, least=0, most=1e9)) for name, ours in PRICES.items()}
    price = {name: float(f"{paid * MILLION:.12g}") for name, paid in found.items() if paid is not None}
    if not price or {"input", "output"} <= price.keys():
        return price
    params.remark("input_cost_per_token", "not carried: a price needs output_cost_per_token and input_cost_per_token")
    return {}


# ------------------------------------------------------------------------------------------------------ a client's arguments
def _arguments(spec: Spec, params: Section, variables: Variables) -> dict[str, Any]:
    """What the client is made with."""

    def secret(name: str, base: str, value: Any) -> str:
        if not isinstance(value, Hidden):
            return text(value)
        variable = variables.of(base, value)
        params.remark(name, f"its literal is not written: set the variable {variable}, which stands in its place")
        return f"${{{variable}}}"

    found: dict[str, Any] = {}
    for name, kind in {**ARGUMENTS, **ARGUMENTS_OF.get(spec.word, {})}.items():
        read = partial(secret, name, name.upper()) if kind == "secret" else READERS[kind]
        found[RENAMED.get(name, name)] = params.take(name, read)
    found["max_tokens"] = first((params,), "max_tokens", COUNT) or params.take("max_completion_tokens", COUNT)
    found[ENDPOINTS.get(spec.word, "base_url")] = params.take("api_base", text) or params.take("base_url", text)
    key = KEYS.get(spec.word, "api_key")
    if key is not None:
        found[key] = params.take("api_key", partial(secret, "api_key", f"{_as_variable(spec.prefix)}_API_KEY"))
    elif "api_key" in params.content:
        params.take("api_key", lambda _: unfit("its client takes no key"))
    if spec.word == "azure_openai":
        found["azure_deployment"] = spec.model
    for name, value in _asked_of_the_environment(spec.prefix).items():
        if found.get(name) is None:
            params.remark("", f"{name} is not in the file: the new one asks for {value}")
            found[name] = value
    return {name: value for name, value in found.items() if value is not None}


def _asked_of_the_environment(prefix: str) -> dict[str, str]:
    """What LiteLLM looks for in the environment under a name that LangChain's client does not know."""
    if prefix in COMPATIBLE:
        name = _as_variable(prefix)
        return {"base_url": f"${{{name}_API_BASE}}", "api_key": f"${{{name}_API_KEY:-none}}"}
    return {name: f"${{{variable}}}" for name, variable in ASKED_OF_THE_ENVIRONMENT.get(prefix, {}).items()}


def _as_variable(word: str) -> str:
    return re.sub(r"\W", "_", word).upper()
