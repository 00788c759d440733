"""From a `Provider` to the engine's `Target`: the client, its name, its keys, its time limits.

Rules of this file: what we build ourselves has its inner retries off and its timeouts set; what the user built is left as it is, and told
about once. What differs between LangChain's partner packages is data, in the tables. A credential leaves this file only as a keyed hash.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.language_models import BaseChatModel, SimpleChatModel

from langchain_resilient.config import Provider
from langchain_resilient.engine.circuit import Circuit
from langchain_resilient.engine.errors import SettingsError, require, warn_user
from langchain_resilient.engine.policy import LONGEST_RESPONSE, SLOWEST_OUTPUT, Target, Timeouts
from langchain_resilient.engine.quota import RateLimits
from langchain_resilient.hanging_up import let_hang_up
from langchain_resilient.identity import (
    LITELLM_NAMES,
    account_of,
    name_of,
    profile_of,
    reasons,
    route_of,
    takes_prefill,
    word_of,
)
from langchain_resilient.limiter import BoundedLimiter

NO_RETRIES: dict[str, dict[str, Any]] = {
    "google_genai": {"max_retries": 1},
    "google_vertexai": {"max_retries": 1},
    "ollama": {},
    "litellm": {"model_kwargs": {"max_retries": 0}},
    "bedrock": {}, "bedrock_converse": {}, "anthropic_bedrock": {}, "huggingface": {}, "ibm": {},
}  # fmt: skip
"""How to turn a client's own retries off (`max_retries=0` elsewhere; Google's counts attempts, Ollama has none)."""

CONNECT_AND_READ = frozenset({"openai", "azure_openai", "ollama"})
"""Clients that take a connect limit beside the read limit, as a pair."""

EXTRAS = {"openai": "openai", "azure_openai": "openai", "anthropic": "anthropic", "ollama": "ollama"}
"""The extra of this distribution that installs a provider's package; for others the package is named by the import error."""

FINISHERS = frozenset({"openai", "azure", "anthropic", "gemini", "vertex_ai", "ollama", "bedrock", "mistral"})
"""Wires that always end a stream with a finish reason."""

MOST_TOKENS = {"ollama": "num_predict", "google_genai": "max_output_tokens", "google_vertexai": "max_output_tokens"}
"""What `max_tokens` is called, where it is called something else."""

ONE_WORD_FOR_TOKENS = frozenset({"anthropic", "mistralai", *MOST_TOKENS})
"""Clients that refuse OpenAI's newer `max_completion_tokens`."""

OLLAMA_OPTIONS = frozenset({
    "mirostat", "mirostat_eta", "mirostat_tau", "num_ctx", "num_gpu", "num_predict", "num_thread", "repeat_last_n", "repeat_penalty",
    "seed", "temperature", "tfs_z", "top_k", "top_p",
})  # fmt: skip
"""What Ollama's client takes in `options` alone: as arguments of a call they are a TypeError."""


SDK_CLIENTS = ("root_client", "_client", "client")
"""Where a model keeps its SDK's client."""


class InnerRetriesWarning(UserWarning):
    """A provider's client still retries by itself, so attempts multiply unseen."""


@dataclass(frozen=True, eq=False)
class Client:
    """How one provider is called."""

    model: BaseChatModel
    word: str
    """LangChain's for its provider."""
    plain: bool
    """Whether `_generate` alone does all that `invoke` would: it has no cache, limiter or output version."""
    takes_run_manager: bool
    """Whether `_generate` does."""
    atakes_run_manager: bool
    """Whether `_agenerate` does."""
    streams: bool
    """Whether it can stream at all, and was not told never to."""
    off_for_tools: bool
    """Whether it was told not to stream where tools are offered."""
    call_kwargs: Mapping[str, Any]
    """LangChain's standard parameters that the model has no field for."""
    gives_up_after: float | None
    """Seconds after which the model itself gives up, whatever comes: its attribute `total_timeout`. Clients over HTTP have none, as their
    limits begin anew with every byte, and some servers send white space to keep a connection alive."""
    streams_inside: bool
    """Whether its unstreamed answers are put together from a stream, so that one can be cut unnoticed."""
    forced: bool
    """Whether it was made with `streaming=True`, which asks for tokens from `invoke`: ours then streams as it would have."""
    generates_async: bool
    """Whether it has an `_agenerate` of its own."""
    streams_async: bool
    """Whether it has an `_astream` of its own."""

    def asked_with(self, given: Mapping[str, Any]) -> tuple[BaseChatModel, dict[str, Any]]:
        """The model and the arguments that say to it what a call's `given` say to the first provider."""
        if not given:
            return self.model, dict(self.call_kwargs)
        arguments = {**self.call_kwargs, **_named(self.word, given)}
        if self.word != "ollama":
            return self.model, arguments
        options = {name: arguments.pop(name) for name in OLLAMA_OPTIONS & arguments.keys()}
        if "options" in arguments:
            return self.model, {**arguments, "options": {**options, **arguments["options"]}}
        # Not as `options`: the client then leaves out all that the model itself was set to.
        return (self.model.model_copy(update=options) if options else self.model), arguments


def _named(word: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments under the names that a client has for them."""
    known = {"max_tokens", "max_completion_tokens"} if word in ONE_WORD_FOR_TOKENS else {"max_tokens"}
    return {MOST_TOKENS.get(word, "max_tokens") if key in known else key: value for key, value in given.items()}


def build(
    given: Sequence[str | BaseChatModel | Provider],
    *,
    namespace: str,
    circuit: Circuit,
    timeouts: Timeouts,
    standard: Mapping[str, Any],
) -> tuple[Target, ...]:
    """The targets of a model, in order of priority. Raises `SettingsError`."""
    require(
        isinstance(given, list | tuple) and bool(given),
        "providers",
        given,
        'name at least one, such as "openai:gpt-4.1"',
    )
    targets = [
        _target(item if isinstance(item, Provider) else Provider(item), index, namespace, circuit, timeouts, standard)
        for index, item in enumerate(given)
    ]
    names = [target.name for target in targets]
    twice = next((name for name in names if names.count(name) > 1), None)
    require(twice is None, "providers", twice, "two have this name: give each a `name` of its own")
    return tuple(sorted(targets, key=lambda target: target.priority))


def _target(
    provider: Provider, index: int, namespace: str, circuit: Circuit, timeouts: Timeouts, standard: Mapping[str, Any]
) -> Target:
    timeouts = provider.timeouts or timeouts
    model = provider.model
    if isinstance(model, str):
        model, word = _from_spec(provider, f"providers[{index}]", timeouts, standard)
        _warn_of_retries(model)  # `model_kwargs` may have turned them on again
        call_kwargs: dict[str, Any] = {}
    else:
        ok = isinstance(model, BaseChatModel)
        require(
            ok,
            f"providers[{index}]",
            type(model).__name__,
            'give a LangChain chat model, a spec such as "openai:gpt-4.1", or a Provider',
        )
        word = word_of(model)
        _warn_of_retries(model)
        model, call_kwargs = _with_standard(model, word, standard)
    client = client_of(model, word, call_kwargs)
    name = provider.name or name_of(model, word, provider.model)
    route = route_of(provider, model, name)
    return Target(
        name=name, route=route, account=account_of(provider, model, route, namespace), client=client,
        priority=index if provider.priority is None else provider.priority, weight=provider.weight, max_latency=provider.max_latency,
        price=provider.full_price, limits=provider.limits or RateLimits(), circuit=provider.circuit or circuit, timeouts=timeouts,
        context_window=provider.context_window or profile_of(model).get("max_input_tokens"), reasons=reasons(model),
        takes_prefill=takes_prefill(word, model) if provider.prefill is None else provider.prefill,
        sends_finish_reason=LITELLM_NAMES.get(word, word) in FINISHERS,
    )  # fmt: skip


# ---------------------------------------------------------------------------------------------------------- from a spec
def _from_spec(
    provider: Provider, path: str, timeouts: Timeouts, standard: Mapping[str, Any]
) -> tuple[BaseChatModel, str]:
    spec = provider.model
    word, _, rest = spec.partition(":")
    require(bool(word and rest), path, spec, 'write "provider:model", such as "openai:gpt-4.1"')
    word = word.replace("-", "_").lower()
    try:
        from langchain.chat_models import init_chat_model  # heavy, and an extra
    except ImportError as error:
        msg = f"{path}: got {spec!r}; a spec needs the package `langchain`: pip install {_package(word, 'langchain')}, or give a chat model"
        raise SettingsError(msg) from error
    arguments = _spec_arguments(word, timeouts, {**standard, **provider.model_kwargs})
    try:
        return init_chat_model(rest, model_provider=word, **arguments), word
    except ImportError as error:
        package = _package(word, f"langchain-{word.replace('_', '-')}")
        msg = f"{path}: got {spec!r}; its package is missing ({error}): pip install {package}"
        raise SettingsError(msg) from error
    except ValueError as error:
        # pydantic's own message repeats its input, and with it a key.
        said = (
            "; ".join(item["msg"] for item in error.errors(include_input=False))
            if hasattr(error, "errors")
            else str(error)
        )
        msg = f"{path}: got {spec!r}; {said.splitlines()[0] if said else 'the client refused it'}"
        raise SettingsError(msg) from None
    except Exception as error:
        # A client that can't be made (no key, usually) says so in its own words, which name no secret.
        msg = f"{path}: got {spec!r}; its client can't be made: {type(error).__name__}: {str(error).splitlines()[0]}"
        raise SettingsError(msg) from error


def _package(word: str, otherwise: str) -> str:
    return f"'langchain-resilient[{EXTRAS[word]}]'" if word in EXTRAS else otherwise


def _spec_arguments(word: str, timeouts: Timeouts, given: Mapping[str, Any]) -> dict[str, Any]:
    arguments = _named(word, given)
    for key, value in NO_RETRIES.get(word, {"max_retries": 0}).items():
        arguments.setdefault(key, value)
    read = _longest_response(word, timeouts, arguments)
    limit: Any = (min(timeouts.connect, read), read) if word in CONNECT_AND_READ else read
    if word == "ollama":
        arguments["client_kwargs"] = {"timeout": limit, **arguments.get("client_kwargs", {})}
    elif word not in {"bedrock", "bedrock_converse", "anthropic_bedrock", "huggingface", "ibm", "litellm"}:
        arguments.setdefault("timeout", limit)
    return arguments


def _longest_response(word: str, timeouts: Timeouts, arguments: Mapping[str, Any]) -> float:
    if timeouts.response != Timeouts().response:
        return timeouts.response
    allowed = arguments.get(MOST_TOKENS.get(word, "max_tokens"))
    # Anthropic's client always allows as many tokens as the model has.
    allowed = allowed if isinstance(allowed, int) else LONGEST_RESPONSE * SLOWEST_OUTPUT if word == "anthropic" else 0
    return min(LONGEST_RESPONSE, timeouts.response + allowed / SLOWEST_OUTPUT)


# ----------------------------------------------------------------------------------------------------- from an instance
def _with_standard(
    model: BaseChatModel, word: str, standard: Mapping[str, Any]
) -> tuple[BaseChatModel, dict[str, Any]]:
    """The model with LangChain's standard parameters set: on a copy where it has the field, else given with every call."""
    fields = type(model).model_fields
    named = _named(word, standard)
    update = {key: value for key, value in named.items() if key in fields}
    return (model.model_copy(update=update) if update else model), {
        key: value for key, value in named.items() if key not in fields
    }


def _warn_of_retries(model: BaseChatModel) -> None:
    retries = getattr(model, "max_retries", None)
    if retries is None and "max_retries" in type(model).model_fields:
        # Left out, it is the SDK's own default, which the SDK's client tells.
        retries = next((found for name in SDK_CLIENTS if (found := _retries_of(model, name)) is not None), None)
    least = 1 if word_of(model).startswith("google") else 0
    if isinstance(retries, int) and retries > least:
        kind = type(model).__name__
        message = (
            f"{kind}(max_retries={retries}) retries by itself inside every attempt: attempts multiply, and a long Retry-After is slept "
            f"unseen. Make it with max_retries={least}, or give a spec string."
        )
        warn_user(message, InnerRetriesWarning)


def _retries_of(model: BaseChatModel, name: str) -> Any:
    return getattr(getattr(model, name, None), "max_retries", None)


def client_of(model: BaseChatModel, word: str, call_kwargs: Mapping[str, Any]) -> Client:
    """How a model is called.

    Args:
        model: The model.
        word: LangChain's for its provider.
        call_kwargs: What is given with every call.
    """
    own = type(model)
    said = getattr(model, "streaming", None) if "streaming" in model.model_fields_set else None
    forced = said is True
    if forced:
        # It would put unstreamed answers together from a stream, which can be cut unnoticed, and tell callbacks of failed attempts.
        model = model.model_copy(update={"streaming": False})
    if model.rate_limiter is not None:
        model = model.model_copy(update={"rate_limiter": BoundedLimiter(model.rate_limiter)})
    let_hang_up(model)
    streams = own._stream is not BaseChatModel._stream or own._astream is not BaseChatModel._astream
    return Client(
        model=model,
        word=word,
        plain=model.cache is None and model.rate_limiter is None and model.output_version is None,
        takes_run_manager="run_manager" in inspect.signature(own._generate).parameters,
        atakes_run_manager="run_manager" in inspect.signature(own._agenerate).parameters,
        streams=streams and model.disable_streaming is not True and said is not False,
        off_for_tools=model.disable_streaming == "tool_calling",
        call_kwargs=call_kwargs,
        gives_up_after=getattr(model, "total_timeout", None),
        streams_inside=word == "ollama",
        forced=forced,
        generates_async=own._agenerate not in (BaseChatModel._agenerate, SimpleChatModel._agenerate),
        streams_async=own._astream is not BaseChatModel._astream,
    )
