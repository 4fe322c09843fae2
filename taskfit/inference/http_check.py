"""Before a service is asked: its key, and whether it is there and has the model."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from taskfit.errors import ModelError, ServiceError, nearest

if TYPE_CHECKING:
    from taskfit.models.service import Service

__all__ = ["check_service", "read_key"]

_LIST_S = 20.0
_LIST_BYTES = 8 * 2**20
_MOST_LISTED = 10


def read_key(service: Service) -> str:
    """Return the service's key from the environment; empty where none is named.

    Raises:
        ServiceError: the variable is empty, or holds what cannot be a key. Its value is not repeated.
    """
    if not service.key:
        return ""
    key = os.environ.get(service.key, "").strip()
    if not key:
        raise ServiceError(
            f"the key of {service.host} is not set", f"Put it into the environment: export {service.key}=…"
        )
    if not (key.isascii() and key.isprintable() and " " not in key):
        raise ServiceError(f"what stands in {service.key} cannot be a key: it holds spaces, or characters not in ASCII")
    return key


def check_service(service: Service) -> None:
    """Ask a service which models it has; nothing is billed for that. One that keeps no list is believed.

    Raises:
        ServiceError: it cannot be reached, the key is not set or refused. ModelError: it has no such model.
    """
    import httpx2

    key = read_key(service)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    hint = "Is the address right up to /v1, and the service running?"
    try:
        with (
            httpx2.Client(timeout=min(_LIST_S, service.timeout_s), trust_env=not service.is_local) as client,
            client.stream("GET", f"{service.base_url}/models", headers=headers) as reply,
        ):
            status, content = reply.status_code, b""
            for part in reply.iter_bytes():
                content += part
                if len(content) > _LIST_BYTES:
                    return
    except httpx2.DecodingError:
        return
    except (httpx2.TransportError, httpx2.InvalidURL) as error:
        raise ServiceError(f"{service.host} cannot be reached ({type(error).__name__})", hint) from None
    if status in (401, 403):
        hint = f"Is the key in {service.key} right?" if service.key else "Name the key's variable: ?key=VARIABLE"
        raise ServiceError(f"{service.host} answered with status {status}", hint, status=status)
    names = _model_names(content) if status == 200 else []
    if names and service.model not in names:
        listed = ", ".join(names[:_MOST_LISTED]) + (" …" if len(names) > _MOST_LISTED else "")
        raise ModelError(
            f"{service.host} has no model {service.model!r}{nearest(service.model, names)}", f"It has {listed}"
        )


def _model_names(content: bytes) -> list[str]:
    """Return the names of a list of models; empty where it is none."""
    try:
        entries = json.loads(content)["data"]
        return [entry["id"] for entry in entries if isinstance(entry["id"], str) and entry["id"].isprintable()]
    except (ValueError, KeyError, TypeError, RecursionError):
        return []
