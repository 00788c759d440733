"""Under which keys a provider's state is kept, and what its model's name tells, for LangChain's clients and LiteLLM's deployments alike.

Rules of this file: of plain strings; two that mean the same provider get the same key, whichever library asks; a credential leaves this
file only as a keyed hash, and a URL without what it may hide.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from hashlib import blake2b
from urllib.parse import urlsplit

REASONING = re.compile(
    r"(^|[/.:-])(o[1-9]\b|gpt-5(?!.*chat)|deepseek-(r\d|reasoner)|qwq|magistral|gemini-(2\.5|3)|.*(thinking|reasoner|reasoning))",
    re.IGNORECASE,
)
"""Names of models that think before they speak whether asked to or not."""
LAST_PREFILL = (4, 5)
"""The last version of Claude that goes on with its own words."""
HOMES = frozenset({"api.openai.com/v1", "api.anthropic.com", "127.0.0.1:11434", "localhost:11434"})
"""Where providers are that are asked without saying where: whether it is said or not is one and the same."""
_CLAUDE = re.compile(r"claude-(?:[a-z]+-)?(\d+)(?:[-.](\d{1,2})(?!\d))?")


def route_key(name: str, endpoints: Iterable[str]) -> str:
    """The key of what all credentials of a provider share: its "provider/model", and where it is if that is said."""
    return f"{name}@{','.join(place for place in map(plain_endpoint, endpoints) if place not in HOMES)}"


def plain_endpoint(given: str) -> str:
    """A URL without scheme, user, password, query and last slash; what is no URL (a region, say) as it is."""
    url = urlsplit(given)
    if not url.hostname:
        return given
    return f"{url.hostname}{f':{url.port}' if url.port else ''}{url.path.rstrip('/')}"


def credential_hash(secrets: Iterable[str], namespace: str) -> str:
    """A short keyed hash of a credential's secrets in any order; "" without any."""
    secret = "\n".join(sorted(secrets))
    return blake2b(secret.encode(), key=namespace.encode()[:64], digest_size=6).hexdigest() if secret else ""


def account_key(route: str, credential: str) -> str:
    """The key of what belongs to one credential."""
    return f"{route}|{credential}"


def thinks_first(model: str) -> bool:
    """Whether a model of this name thinks before it speaks whether asked to or not."""
    return REASONING.search(model) is not None


def continues_its_own(model: str) -> bool:
    """Whether a Claude of this name goes on with a begun answer that it is given as its own last message.

    They do up to Claude 4.5; later ones answer 400
    (https://platform.claude.com/docs/en/about-claude/models/whats-new-claude-4-6, "Prefill removal").
    """
    version = _CLAUDE.search(model)
    return version is not None and (int(version[1]), int(version[2] or 0)) <= LAST_PREFILL
