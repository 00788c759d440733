"""Who answers for a model group of LiteLLM's: its own deployments, then those of the groups it falls back to.

Rules of this file: pure. What is malformed is an error that names its place, because a file that LiteLLM would not take either is no
file to read half of.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from langchain_resilient.cli.litellm_deployments import Deployment
from langchain_resilient.cli.litellm_reading import Remarks, Section
from langchain_resilient.cli.redact import HIDDEN
from langchain_resilient.engine.errors import require, unknown_name

ANY = "*"
FALLBACKS = ("fallbacks", "default_fallbacks")


class Groups(NamedTuple):
    """All deployments of the file, by the name they are asked by."""

    entries: Mapping[str, list[tuple[str, Mapping[str, Any]]]]
    """Each with its place in the file."""
    aliases: Mapping[str, str]

    def of(self, asked: str) -> tuple[str, list[tuple[str, Mapping[str, Any], str]]] | None:
        """The group that answers to a name, with what each deployment's model is called then; None: nobody does."""
        name = self.aliases.get(asked, asked)
        if name in self.entries:
            return name, [(place, entry, entry["litellm_params"]["model"]) for place, entry in self.entries[name]]
        for group, found in sorted(
            self.entries.items(), key=lambda item: -len(item[0])
        ):  # the most specific wildcard first
            stands_for = _stands_for(group, name)
            if stands_for is not None:
                return group, [
                    (place, entry, entry["litellm_params"]["model"].replace(ANY, stands_for)) for place, entry in found
                ]
        return None


def _stands_for(pattern: str, name: str) -> str | None:
    """What the wildcard of a pattern stands for in a name; None if it does not fit."""
    before, star, after = pattern.partition(ANY)
    found = re.fullmatch(f"{re.escape(before)}(.+){re.escape(after)}", name, re.DOTALL) if star else None
    return found[1] if found else None


def groups_of(entries: Any, aliases: Mapping[str, Any]) -> Groups:
    """The file's groups.

    Raises:
        SettingsError: An entry makes no sense; names its place.
    """
    fix = "write `model_list:` with entries of `model_name:` and `litellm_params:`"
    require(isinstance(entries, list) and bool(entries), "model_list", _shown(entries), fix)
    found: dict[str, list[tuple[str, Mapping[str, Any]]]] = {}
    for index, entry in enumerate(entries):
        place = f"model_list[{index}]"
        require(isinstance(entry, dict), place, _shown(entry), "write `model_name:` and `litellm_params:`")
        params = entry.get("litellm_params")
        require(isinstance(params, dict), f"{place}.litellm_params", _shown(params), "write `model:` and its settings")
        for where, value in (("model_name", entry.get("model_name")), ("litellm_params.model", params.get("model"))):
            ok = isinstance(value, str) and bool(value.strip()) and HIDDEN not in value
            require(ok, f"{place}.{where}", _shown(value), "write a name, such as openai/gpt-4.1")
        found.setdefault(entry["model_name"], []).append((place, entry))
    named = {name: item.get("model") if isinstance(item, dict) else item for name, item in aliases.items()}
    return Groups(found, {name: item for name, item in named.items() if isinstance(item, str)})


def _shown(value: Any) -> Any:
    """What an error may quote."""
    return value if isinstance(value, str | int | float | None) else type(value).__name__


def chosen(groups: Groups, asked: str | None) -> str:
    """The name of the group to import: the one that was asked for, or the first of the file.

    Raises:
        SettingsError: There is none of that name; names the nearest.
    """
    names = [*groups.entries, *groups.aliases]
    if asked is None:
        asked = next((name for name in groups.entries if ANY not in name), None)
        fix = "name a model that it stands for: --group openai/gpt-4.1"
        require(asked is not None, "model_list", f"only wildcards, such as {names[0]}", fix)
    elif groups.of(asked) is None:
        raise unknown_name("--group", asked, names)
    return str(asked)


def deployments_of(groups: Groups, group: str, fallbacks: Sequence[str], remarks: Remarks) -> list[Deployment]:
    """Everybody who may answer for a group, in the order of the groups."""
    found: list[Deployment] = []
    seen: set[str] = set()
    for rung, asked in enumerate((group, *fallbacks)):
        answering = groups.of(asked)
        if answering is None:
            remarks.add("fallbacks", "", f"{asked!r} is left out: there is no such group in model_list")
        elif answering[0] in seen and ANY not in answering[0]:
            remarks.add("fallbacks", "", f"{asked!r} is left out: it is in the list already")
        else:
            seen.add(answering[0])
            found += [Deployment(place, rung, entry, model) for place, entry, model in answering[1]]
    others = [name for name in groups.entries if name not in seen]
    if others:
        remarks.add(
            "model_list", "", f"not carried: {', '.join(others)}: one model answers for one group, and --group names it"
        )
    return found


# ----------------------------------------------------------------------------------------------------------------- fallbacks
def fallbacks_of(sections: Sequence[Section], group: str, names: Sequence[str]) -> list[str]:
    """The groups that a group falls back to, in their order.

    Args:
        sections: Where LiteLLM's fallbacks may stand, the decisive one first.
        group: The name that is asked for.
        names: What else it is called.
    """
    found: dict[str, list[str]] = {}
    for section in sections:
        own = [pair for item in section.take("fallbacks", _listed) or () for pair in _pairs(section, item)]
        general = [(ANY, section.take("default_fallbacks", _listed) or [])]
        for of, targets in (*own, *general):
            if targets:
                found.setdefault(of, list(_named(section, of, targets)))
    mine = next((found.pop(name) for name in (group, *names) if name in found), None)
    general_ones = found.pop(ANY, [])
    if found:
        sections[0].remark("fallbacks", f"not carried: those of {', '.join(found)}: this model answers for {group}")
    return [name for name in (general_ones if mine is None else mine) if name != group]


def _listed(value: Any) -> list[Any]:
    require(isinstance(value, list), "fallbacks", _shown(value), "write a list")
    return list(value)


def _pairs(section: Section, item: Any) -> Iterator[tuple[str, list[Any]]]:
    if not isinstance(item, dict):
        section.remark("fallbacks", "one is not carried: write `- group: [another]`")
        return
    for name, targets in item.items():
        yield name, targets if isinstance(targets, list) else [targets]


def _named(section: Section, of: str, targets: Sequence[Any]) -> Iterator[str]:
    for target in targets:
        name = target.get("model") if isinstance(target, dict) else target
        if not isinstance(name, str) or not name:
            section.remark("fallbacks", f"one of {of} is not carried: it names no group")
            continue
        if isinstance(target, dict) and len(target) > 1:
            section.remark(
                "fallbacks", f"what {of} sets beside the group {name} is not carried: set it at the provider"
            )
        yield name
