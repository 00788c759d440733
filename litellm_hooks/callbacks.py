"""What the Proxy calls us for: its Router is made resilient when the first request comes, and its clients are told who answered.

Rules of this file: nothing is chosen, counted or settled here; that is the engine's, on the Router. The Proxy may make a new Router, or
change the present one, at any time: each request looks.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

from litellm.integrations.custom_logger import CustomLogger

from litellm_hooks.installing import install_with, installed_on
from litellm_hooks.router import WRITTEN
from litellm_hooks.settings import Settings
from litellm_hooks.upstream import NOTE


class ResilientCallbacks(CustomLogger):  # type: ignore[misc]  # LiteLLM's types are not read here
    """A callback for the Proxy's `litellm_settings.callbacks`.

    Args:
        settings: What is to be installed, asked for when it is.
        router: Whom to install it on; default: the Proxy's own, as it is when a request comes.
    """

    def __init__(self, settings: Callable[[], Settings], router: Callable[[], Any] | None = None) -> None:
        super().__init__()
        self._settings = settings
        self._router = proxys_router if router is None else router

    async def async_pre_call_hook(
        self, user_api_key_dict: Any, cache: Any, data: dict[str, Any], call_type: str
    ) -> None:
        """Before routing: install what is not installed yet, and forget what a client says in our name."""
        for metadata in _metadata_of(data):
            metadata.pop(NOTE, None)
        router = self._router()
        if router is not None and installed_on(router) is None:
            install_with(router, self._settings())

    async def async_post_call_response_headers_hook(
        self, data: dict[str, Any], user_api_key_dict: Any, response: Any, request_headers: Any = None, **_: Any
    ) -> dict[str, str]:
        """The headers by which a client learns who answered, after how many attempts, or when to come again."""
        notes = [note for metadata in _metadata_of(data) if isinstance(note := metadata.get(NOTE), Mapping)]
        return {HEADERS[key]: str(value) for note in notes[:1] for key, value in note.items() if key in HEADERS}


def _metadata_of(data: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A request's metadata, under the names that LiteLLM's routes give them."""
    return [metadata for name in WRITTEN if isinstance(metadata := data.get(name), dict)]


HEADERS = {
    "provider": "x-resilience-provider",
    "attempts": "x-resilience-attempts",
    "retry_after": "retry-after",
}
"""What is told of a request, by the name of the header."""


def proxys_router() -> Any:
    """The Proxy's Router at this moment; None: there is no Proxy in this process, or it has none yet."""
    server = sys.modules.get("litellm.proxy.proxy_server")
    return getattr(server, "llm_router", None)
