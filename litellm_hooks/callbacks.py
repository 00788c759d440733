"""What the Proxy calls us for: its Router is made resilient with the first request, users are held to limits, clients told who answered.

Rules of this file: nothing is chosen, counted or decided here; that is the engine's, on the Router, and `tenants`'. The Proxy may make a new Router, or
change the present one, at any time: each request looks.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

from litellm.integrations.custom_logger import CustomLogger

from litellm_hooks import charging
from litellm_hooks.installing import install_with, installed_on
from litellm_hooks.router import WRITTEN
from litellm_hooks.settings import Settings
from litellm_hooks.tenants import Tenants
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
        self._tenants: Tenants | None = None

    async def async_pre_call_hook(
        self, user_api_key_dict: Any, cache: Any, data: dict[str, Any], call_type: str
    ) -> None:
        """Before routing: install what is not installed yet, forget what a client says in our name, and take what it costs of its limits.

        Raises:
            HTTPException: 429, or 413: a limit of whoever asks; see `Tenants.admit`.
        """
        for metadata in _metadata_of(data):
            metadata.pop(NOTE, None)
        router = self._router()
        if router is not None and installed_on(router) is None:
            install_with(router, self._settings())
        if self._tenants is None:
            self._tenants = Tenants(self._settings())
        await self._tenants.admit(user_api_key_dict, data, call_type)

    async def async_pre_call_deployment_hook(self, kwargs: dict[str, Any], call_type: Any) -> None:
        """An attempt begins, on any route: from now on the request counts as made."""
        charge = charging.of_call(kwargs.get("litellm_call_id"))
        if charge is not None:
            charge.sent = True

    async def async_log_success_event(
        self, kwargs: dict[str, Any], response_obj: Any, start_time: Any, end_time: Any
    ) -> None:
        """A request that the engine does not serve was answered, its stream too: it is settled, if that tells what it used."""
        charge = charging.of_call(kwargs.get("litellm_call_id"))
        tokens = charging.tokens_of(response_obj)
        if charge is not None and not charge.served and tokens is not None:
            charge.answered(tokens)

    async def async_post_call_failure_hook(
        self,
        request_data: dict[str, Any],
        original_exception: Exception,
        user_api_key_dict: Any,
        traceback_str: str | None = None,
    ) -> None:
        """A request came to nothing: refused behind us, or failed on a route that the engine does not serve. Of one that it serves the engine tells.

        A guardrail that ends a stream is told of before the stream is closed, and so before it is known what came of it.
        """
        charge = charging.of_call(request_data.get("litellm_call_id"))
        if charge is not None and not charge.served:
            charge.failed()

    async def async_post_call_response_headers_hook(
        self, data: dict[str, Any], user_api_key_dict: Any, response: Any, request_headers: Any = None, **_: Any
    ) -> dict[str, str]:
        """The headers by which a client learns who answered, after how many attempts, when to come again, and what is left of its limits."""
        notes = [note for metadata in _metadata_of(data) if isinstance(note := metadata.get(NOTE), Mapping)]
        told = {HEADERS[key]: str(value) for note in notes[:1] for key, value in note.items() if key in HEADERS}
        charge = charging.present()
        return told if charge is None or response is None else charge.nearest.headers | told


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
