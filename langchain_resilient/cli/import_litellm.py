"""`import-litellm`: LiteLLM's `config.yaml` as settings of ours, and what could not be carried.

Rules of this file: LiteLLM is not imported. `converted` is pure; whatever stands in the file is either carried or remarked on, and a literal
secret is neither written nor said.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import yaml

from langchain_resilient.cli.litellm_deployments import Carried, Variables, carried, timeouts_of
from langchain_resilient.cli.litellm_groups import chosen, deployments_of, fallbacks_of, groups_of
from langchain_resilient.cli.litellm_reading import (
    Cleaned,
    Hidden,
    Remarks,
    Section,
    cleaned,
    first,
    lines,
    number,
    text,
    unfit,
    whole,
)
from langchain_resilient.cli.litellm_words import OTHERWISE, ROUTINGS, SHUFFLE, WEIGHTS
from langchain_resilient.cli.redact import HIDDEN
from langchain_resilient.cli.session import Session
from langchain_resilient.config import parsed
from langchain_resilient.engine.errors import SettingsError, require
from langchain_resilient.engine.store.opening import check_backend
from langchain_resilient.identity import spelled

PLACES = ("router_settings", "litellm_settings")
"""Where LiteLLM's settings for all deployments stand; the first holds where both say something."""


class Converted(NamedTuple):
    """What came of a file."""

    group: str
    settings: dict[str, Any]
    remarks: list[str]


def import_file(session: Session, file: Path, group: str | None) -> None:
    """Do what was typed. Raises `SettingsError`."""
    found = converted(cleaned(parsed(file), session.redactor), group)
    remarks = [session.redactor.line(remark) for remark in found.remarks]
    title = session.redactor.line(f"# {found.group}, imported from LiteLLM's {file.name}")
    title = "".join(letter for letter in title if letter.isprintable())  # what is not, YAML refuses
    written = f"{title}\n{yaml.safe_dump(found.settings, sort_keys=False, allow_unicode=True, width=120)}"
    if session.wants_json:
        said = {"group": found.group, "settings": found.settings, "yaml": written, "remarks": remarks}
        session.document(said)
        return
    session.answer(written)
    for remark in remarks:
        session.note(remark)


def converted(given: Cleaned, asked: str | None) -> Converted:
    """The settings for one group of a file.

    Args:
        given: The file's content.
        asked: The group; None: the first of the file.

    Raises:
        SettingsError: The file makes no sense, or has nothing that can be carried.
    """
    remarks = Remarks()
    content = {"model_list": given.content} if isinstance(given.content, list) else given.content
    fix = "give LiteLLM's config.yaml, with `model_list:`"
    require(isinstance(content, dict), "config", type(content).__name__, fix)
    top = Section("", content, remarks)
    shared = tuple(Section(name, top.take(name, lines) or {}, remarks) for name in PLACES)
    aliases = shared[0].content.get("model_group_alias")
    groups = groups_of(content.get("model_list"), aliases if isinstance(aliases, dict) else {})
    top.pass_over("model_list")
    group = chosen(groups, asked)
    name = groups.aliases.get(group, group)
    fallbacks = fallbacks_of(shared, group, (name,))
    deployments = deployments_of(groups, group, fallbacks, remarks)

    variables = Variables(given.variables)
    settings = _settings_of_all(shared, variables)
    defaults = {"timeouts": settings["timeouts"], "circuit": settings["circuit"]}
    found = [one for each in deployments if (one := carried(each, variables, defaults, remarks)) is not None]
    if not found:
        msg = f"model_list: got nothing for {group!r} that can be carried ({remarks.lines()[-1]}); name another group with --group"
        raise SettingsError(msg)
    routing = _routing(shared, found, remarks)
    providers = _providers(found, weighted=routing == "weighted")
    for section in (*shared, top):
        section.leave_rest()
    everything = {"providers": providers, "routing": routing if len(found) > 1 else None, **settings}
    return Converted(
        group, {key: value for key, value in everything.items() if value not in ({}, None)}, remarks.lines()
    )


# ------------------------------------------------------------------------------------------------------------- of all providers
def _settings_of_all(shared: tuple[Section, ...], variables: Variables) -> dict[str, Any]:
    """What LiteLLM sets for all deployments; empty where it sets nothing."""
    retries = first(shared, "num_retries", whole)
    fails = first(shared, "allowed_fails", whole)
    cooldown = first(shared, "cooldown_time", partial(number, least=1e-6))
    timeouts = timeouts_of(shared)
    request = first(shared, "request_timeout", partial(number, above=0))
    if request is not None:
        timeouts.setdefault("response", request)
    circuit = {"failure_threshold": None if fails is None else fails + 1, "recovery_timeout": cooldown}
    return {
        "retry": {} if retries is None else {"max_retries": retries},
        "circuit": {name: value for name, value in circuit.items() if value is not None},
        "timeouts": timeouts,
        "backend": _backend(shared[0], variables),
    }


def _backend(section: Section, variables: Variables) -> str | None:
    """Where the state that all processes share is kept."""
    url: str | None = section.take("redis_url", _address)
    parts = {name: section.take(name, _part) for name in ("redis_host", "redis_port", "redis_db", "redis_username")}
    password = section.take("redis_password", lambda value: value)
    if url is None and parts["redis_host"] is not None:
        url = _put_together(parts, has_password=password is not None)
    else:
        why = "there is no redis_host" if url is None else "redis_url says where it is"
        for name in section.content.keys() & {*parts, "redis_password"}:
            section.remark(name, f"not carried: {why}")
    if url is None or HIDDEN not in url:
        return url
    place = text(password) if isinstance(password, str) and HIDDEN not in password else ""
    if not place:
        hidden = password if isinstance(password, Hidden) else Hidden(-1)
        place = f"${{{variables.of('REDIS_PASSWORD', hidden)}}}"
        why = (
            f"its literal is not written: set the variable {place[2:-1]}, and write the user before it, if there is one"
        )
        section.remark("redis_password", why)
    section.remark("redis_password", "in a URL its special characters are percent-encoded: so must the variable's be")
    return url.replace(f"//{HIDDEN}@", f"//:{HIDDEN}@").replace(HIDDEN, place)


def _put_together(parts: Mapping[str, str | None], *, has_password: bool) -> str:
    user, database = parts["redis_username"] or "", parts["redis_db"]
    login = f"{user}:{HIDDEN}@" if has_password else f"{user}@" if user else ""
    return f"redis://{login}{parts['redis_host']}:{parts['redis_port'] or 6379}{'' if database is None else f'/{database}'}"


def _part(value: Any) -> str:
    """A part of a URL."""
    found = str(value) if isinstance(value, int) and not isinstance(value, bool) else text(value)
    plain = found[2:-1] if found.startswith("${") and found.endswith("}") else found
    return found if all(letter.isalnum() or letter in "._-" for letter in plain) else unfit("write a host or a number")


def _address(value: Any) -> str:
    """Redis's URL, in which a password is already hidden."""
    found = value if isinstance(value, str) and value.count(HIDDEN) == 1 and f"//{HIDDEN}@" in value else text(value)
    if found.startswith("${"):
        return found
    check_backend(found)
    try:
        url = urlsplit(found.replace(HIDDEN, "x"))
        known = url.hostname is None or url.port != 0
    except ValueError:
        known = False
    return found if known else unfit("write a URL, such as redis://host:6379/0")


# --------------------------------------------------------------------------------------------------------------------- routing
def _routing(shared: tuple[Section, ...], found: Sequence[Carried], remarks: Remarks) -> str:
    strategy = first(shared, "routing_strategy", text) or SHUFFLE
    ranks = len({one.rank for one in found})
    limited = any("rpm" in one.weights or "tpm" in one.weights for one in found)
    if strategy == SHUFFLE:
        if limited:
            remarks.add(
                "model_list",
                "",
                "rpm and tpm are only shares under simple-shuffle: as `limits` they are kept from now on",
            )
        if ranks == 1:
            return "weighted"
        why = "who stands before whom (order, fallbacks) is carried as `priority`, so among equals it is the file's order that decides"
        if len(found) > ranks:
            shared[0].remark("routing_strategy", f"{SHUFFLE} is not carried: {why}")
        return "priority"
    if strategy not in ROUTINGS:
        shared[0].remark("routing_strategy", f'{strategy!r} is not carried: {OTHERWISE}; `routing` is "priority" now')
        return "priority"
    if ranks > 1:
        shared[0].remark(
            "routing_strategy",
            f"`routing: {ROUTINGS[strategy]}` ranks all providers, also those that LiteLLM only falls back to",
        )
    return ROUTINGS[strategy]


def _providers(found: Sequence[Carried], *, weighted: bool) -> list[dict[str, Any]]:
    """The list of providers, in the order in which they are asked."""
    ranks = sorted({one.rank for one in found})
    by = next((name for name in WEIGHTS if any(name in one.weights for one in found)), None) if weighted else "weight"
    providers = []
    for name, one in zip(_names(found), found, strict=True):
        own: dict[str, Any] = {"model": one.settings["model"], "name": name, "priority": ranks.index(one.rank)}
        weight = one.weights.get(by or "", 0 if weighted else None)
        own |= {"weight": weight if len(found) > 1 and by is not None else None, **one.settings}
        dropped = {"priority"} if len(ranks) == 1 else set()
        providers.append({key: value for key, value in own.items() if value is not None and key not in dropped})
    return sorted(providers, key=lambda provider: provider.get("priority", 0))


def _names(found: Sequence[Carried]) -> list[str | None]:
    """A name for each that has not one of its own: LiteLLM's id, or a number."""
    usual = [spelled(one.spec.word, one.spec.model) for one in found]
    often, taken = Counter(usual), set(usual)
    names: list[str | None] = []
    for name, one in zip(usual, found, strict=True):
        if often[name] == 1:
            names.append(None)
            continue
        wanted = [f"{name}#{one.id}"] if one.id else []
        wanted += [f"{name}#{place}" for place in range(1, len(found) + len(taken) + 1)]
        names.append(next(each for each in wanted if each not in taken))
        taken.add(str(names[-1]))
    return names
