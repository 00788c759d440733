"""`Provider`, and all settings from a YAML file.

Rules of this file: a setting is defined once, in the engine's own dataclass, which also checks it; this file only reads files into them
(pydantic converts, the dataclasses judge). Every error names the field by its path, what was given, and the fix. LangChain is not
imported here, so that LiteLLM users can read the same file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from langchain_resilient.engine.backoff import Retry
from langchain_resilient.engine.circuit import Circuit
from langchain_resilient.engine.dead_letters.opening import DeadLetters
from langchain_resilient.engine.errors import SettingsError, checked, is_number, require, unknown_name
from langchain_resilient.engine.hedge import Hedge
from langchain_resilient.engine.policy import INTERRUPTIONS, Price, Timeouts
from langchain_resilient.engine.quota import RateLimits
from langchain_resilient.engine.routing import ROUTINGS
from langchain_resilient.engine.store.opening import MEMORY, check_backend

SECTIONS: dict[str, type] = {
    "circuit": Circuit,
    "retry": Retry,
    "timeouts": Timeouts,
    "hedge": Hedge,
    "limits": RateLimits,
    "price": Price,
    "dead_letters": DeadLetters,
}
"""The settings that are a dataclass of their own, by the name of the field that takes them."""
ALSO_PLAIN = frozenset({"dead_letters"})
"""Those that may be one word or number instead."""


_VARIABLE = re.compile(r"\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}")


def check_own(settings: Any) -> None:
    """Refuse nonsensical settings of one provider, whichever library has it."""
    name = type(settings).__name__
    latency = settings.max_latency
    require(
        latency is None or is_number(latency, above=0),
        f"{name}.max_latency",
        latency,
        "use a number of seconds > 0, or None",
    )
    for section, kind in SECTIONS.items():
        value = getattr(settings, section, None)
        ok = value is None or isinstance(value, kind)
        require(ok, f"{name}.{section}", value, f"give a {kind.__name__}(...), or None")
    total = None if settings.timeouts is None else settings.timeouts.total
    ok = total is None or total == Timeouts().total
    require(ok, f"{name}.timeouts.total", total, "it is the request's, over all providers: set it for all of them")


@checked
@dataclass(frozen=True)
class Provider:
    """One provider of a model. Checked when made: raises `SettingsError`."""

    model: Any
    """A chat model, or a spec such as "openai:gpt-4.1", from which one is made with its inner retries off and its timeouts set."""
    _: KW_ONLY
    name: str | None = None
    """The label in metrics and records; default: "provider/model" as LiteLLM spells it."""
    account: str | None = field(default=None, repr=False)
    """What the limits and blocks of a credential are kept under; default: a keyed hash of the credential."""
    model_kwargs: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """For a spec: further arguments of the client (`api_key`, `base_url`, `temperature`, …)."""
    priority: int | None = None
    """Lower is asked earlier; default: the place in the list."""
    weight: float = 1.0
    """Its share under `routing="weighted"` (≥ 0)."""
    max_latency: float | None = None
    """Seconds (> 0): above this p50 it ranks behind faster ones."""
    cost_per_1k: float | None = None
    """US dollars per 1000 tokens (≥ 0), shorthand for a `price` that is the same in all directions."""
    price: Price | None = None
    """US dollars per million tokens."""
    limits: RateLimits | None = None
    """What the account allows."""
    circuit: Circuit | None = None
    """Overrides the model's circuit settings."""
    timeouts: Timeouts | None = None
    """Overrides the model's time limits; `total` and `watch_calls` are the request's, so they stay the model's."""
    context_window: int | None = None
    """Input tokens it takes (≥ 1): a prompt too large for one goes to the largest of the others first."""
    prefill: bool | None = None
    """Whether it goes on with a begun answer that it is given as the assistant's last message, for `on_interruption="continue"`. One that
    takes the message and then starts again must have False. None: by the model's name (Claude up to 4.5); a 400 is learned from."""

    def __post_init__(self) -> None:
        require(
            self.model is not None and self.model != "",
            "Provider.model",
            self.model,
            'give a chat model or a spec such as "openai:gpt-4.1"',
        )
        ok = self.name is None or (isinstance(self.name, str) and bool(self.name))
        require(ok, "Provider.name", self.name, "give a name that is not empty, or None")
        # Only their types are shown: either may hold a secret.
        ok = self.account is None or isinstance(self.account, str)
        require(ok, "Provider.account", type(self.account).__name__, "give a name, or None")
        ok = isinstance(self.model_kwargs, Mapping)
        require(
            ok, "Provider.model_kwargs", type(self.model_kwargs).__name__, "give a mapping of the client's arguments"
        )
        ok = self.prefill is None or isinstance(self.prefill, bool)
        require(ok, "Provider.prefill", self.prefill, "use True or False, or None: by the model's name")
        ok = self.priority is None or (isinstance(self.priority, int) and not isinstance(self.priority, bool))
        require(ok, "Provider.priority", self.priority, "use a whole number, lower is asked earlier")
        require(is_number(self.weight, least=0), "Provider.weight", self.weight, "use a number ≥ 0")
        cost = self.cost_per_1k
        require(
            cost is None or is_number(cost, least=0),
            "Provider.cost_per_1k",
            cost,
            "use US dollars per 1000 tokens ≥ 0, or None",
        )
        require(cost is None or self.price is None, "Provider.cost_per_1k", cost, "give either cost_per_1k or price")
        window = self.context_window
        ok = window is None or (isinstance(window, int) and is_number(window, least=1))
        require(ok, "Provider.context_window", window, "use a whole number of tokens ≥ 1, or None")
        check_own(self)
        usd = None if self.limits is None else self.limits.usd_per_day
        priced = usd is None or self.cost_per_1k is not None or self.price is not None
        require(
            priced,
            "RateLimits.usd_per_day",
            usd,
            "set the provider's price (or cost_per_1k) as well: dollars are counted by it",
        )
        require(isinstance(self.model, str) or not self.model_kwargs, "Provider.model_kwargs", sorted(self.model_kwargs),
                'only a spec such as "openai:gpt-4.1" takes them: set them on the model itself')  # fmt: skip

    @property
    def full_price(self) -> Price | None:
        """The price, `cost_per_1k` included."""
        if self.cost_per_1k is None:
            return self.price
        return Price(self.cost_per_1k * 1000, self.cost_per_1k * 1000)


def read_yaml(path: str | os.PathLike[str], known: frozenset[str]) -> dict[str, Any]:
    """The keyword arguments of a model from a YAML file.

    Args:
        path: The file.
        known: The names that may stand at its top.

    Raises:
        SettingsError: For anything that is unknown, unset or nonsensical; names the field by its path.
    """
    content = parsed(path)
    require(
        isinstance(content, dict),
        str(path),
        type(content).__name__,
        "write settings as `key: value` lines, `providers:` at least",
    )
    settings = read_sections(_expand(content, str(path)), known, str(path))
    given = settings.get("providers")
    require(isinstance(given, list) and bool(given), "providers", given, "list at least one provider")
    settings["providers"] = [_provider(item, f"providers[{index}]") for index, item in enumerate(settings["providers"])]
    return settings


def parsed(path: str | os.PathLike[str]) -> Any:
    """What a YAML file holds, as plain values.

    Raises:
        SettingsError: The file can't be read, or is no YAML.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
        return yaml.safe_load(text)
    except OSError as error:
        msg = f"{path}: got a file that can't be read ({error.strerror}); give the path of a YAML file"
        raise SettingsError(msg) from error
    except UnicodeDecodeError as error:
        msg = f"{path}: got bytes that are no UTF-8 (at byte {error.start}); save the file as UTF-8"
        raise SettingsError(msg) from None
    except yaml.YAMLError as error:
        place = getattr(error, "problem_mark", None)
        where = "" if place is None else f" at line {place.line + 1}, column {place.column + 1}"
        msg = f"{path}: got text that is no YAML{where} ({getattr(error, 'problem', None) or 'malformed'}); fix its syntax"
        raise SettingsError(msg) from error
    except RecursionError:
        msg = f"{path}: got YAML that is nested too deeply; write it flatter"
        raise SettingsError(msg) from None
    except (
        ValueError,
        AttributeError,
        TypeError,
        ArithmeticError,
    ) as error:  # a month 13, a tag that its text does not fit
        msg = f"{path}: got a value that is none of its type ({type(error).__name__}); quote dates and long numbers"
        raise SettingsError(msg) from None


def read_sections(given: Mapping[str, Any], known: frozenset[str], path: str, within: str = "") -> dict[str, Any]:
    """Settings as a file gives them, with each section as the dataclass that it stands for.

    Args:
        given: The settings.
        known: The names that may be in them.
        path: Where they stand, for errors about unknown names.
        within: What goes before a section's name in errors, such as "deployments.main.".

    Raises:
        SettingsError: For anything that is unknown or nonsensical; names the field by its path.
    """
    _refuse_unknown(given, known, path)
    return {
        name: _section(SECTIONS[name], value, f"{within}{name}")
        if name in SECTIONS
        and value is not None
        and not isinstance(value, SECTIONS[name])
        and (isinstance(value, dict) or name not in ALSO_PLAIN)
        else value
        for name, value in given.items()
    }


def _provider(item: Any, path: str) -> Any:
    if isinstance(item, str):
        return item
    # Not a list's own text: a variable in it may be expanded to a secret already.
    shown = type(item).__name__ if isinstance(item, list) else item
    require(isinstance(item, dict), path, shown, 'write a spec such as "openai:gpt-4.1", or a mapping with `model:`')
    require("model" in item, f"{path}.model", None, 'name the model, such as "openai:gpt-4.1"')
    inner = read_sections(item, frozenset(each.name for each in fields(Provider)), path, f"{path}.")
    return _section(Provider, inner, path)


@cache
def _adapter(kind: type) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _section(kind: type, given: Any, path: str) -> Any:
    require(isinstance(given, dict), path, given, f"write the settings of {kind.__name__} as a mapping")
    _refuse_unknown(given, frozenset(item.name for item in fields(kind)), path)
    try:
        return _adapter(kind).validate_python(given)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        own = first.get("ctx", {}).get("error")
        if isinstance(own, SettingsError):
            raise SettingsError(f"{path}: {own}") from None
        where = ".".join([path, *(str(step) for step in first["loc"])])
        raise SettingsError(f"{where}: got {_shown(where, first['input'])}; {first['msg'].lower()}") from None


def _shown(where: str, value: Any) -> str:
    return "a value" if "model_kwargs" in where or "account" in where else repr(value)


def _refuse_unknown(given: Mapping[str, Any], known: frozenset[str], path: str) -> None:
    for name in given:
        if name not in known:
            raise unknown_name(f"{path}: unknown key", name, sorted(known))


def _expand(value: Any, path: str) -> Any:
    """The value with every `${NAME}` and `${NAME:-default}` in its strings replaced from the environment."""
    if isinstance(value, dict):
        return {key: _expand(item, f"{path}.{key}") for key, item in value.items()}
    if isinstance(value, list):
        return [_expand(item, f"{path}[{index}]") for index, item in enumerate(value)]
    if not isinstance(value, str):
        return value

    def replace(match: re.Match[str]) -> str:
        found = os.environ.get(match["name"], match["default"])
        require(
            found is not None,
            path,
            match[0],
            f"set the environment variable {match['name']}, or write ${{{match['name']}:-default}}",
        )
        return found or ""

    return _VARIABLE.sub(replace, value)


def _check_dead_letters(given: Any) -> None:
    ok = given is None or isinstance(given, bool | str | DeadLetters)
    # Not itself: a list of keys may have been meant.
    require(
        ok,
        "dead_letters",
        type(given).__name__,
        "give True, a path, a URL of Redis, a DeadLetters(...), or None for none",
    )
    if isinstance(given, str):
        DeadLetters(given)


def check_settings(settings: Mapping[str, Any]) -> None:
    """Refuse nonsensical settings before pydantic sees them, with errors in this library's own form."""
    for name, kind in {"circuit": Circuit, "retry": Retry, "timeouts": Timeouts}.items():
        require(isinstance(settings.get(name, kind()), kind), name, settings.get(name), f"give a {kind.__name__}(...)")
    check_backend(settings.get("backend", MEMORY))
    hedge = settings.get("hedge")
    require(hedge is None or isinstance(hedge, Hedge), "hedge", hedge, "give a Hedge(...), or None for none")
    _check_dead_letters(settings.get("dead_letters"))
    if settings.get("on_interruption", "continue") not in INTERRUPTIONS:
        raise unknown_name("on_interruption", settings["on_interruption"], INTERRUPTIONS)
    if settings.get("routing", "priority") not in ROUTINGS:
        raise unknown_name("routing", settings["routing"], ROUTINGS)
    most = settings.get("max_pending")
    ok = most is None or (isinstance(most, int) and is_number(most, least=1))
    require(ok, "max_pending", most, "use a whole number ≥ 1, or None for no bound")
    namespace = settings.get("namespace", "default")
    require(isinstance(namespace, str) and bool(namespace), "namespace", namespace, "give a name that is not empty")
    for name in ("timeout", "max_tokens"):
        value = settings.get(name)
        require(value is None or is_number(value, above=0), name, value, "use a number > 0, or None")
    temperature = settings.get("temperature")
    require(
        temperature is None or is_number(temperature, least=0), "temperature", temperature, "use a number ≥ 0, or None"
    )
    stop = settings.get("stop")
    require(stop is None or isinstance(stop, list | tuple), "stop", stop, "give a list of words, or None")
    classifier = settings.get("classifier")
    require(
        classifier is None or callable(classifier), "classifier", classifier, "give a function of an exception, or None"
    )
    observers = settings.get("observers", ())
    require(
        isinstance(observers, list | tuple),
        "observers",
        observers,
        'give a list of observers, or of the words "prometheus" and "opentelemetry"',
    )
