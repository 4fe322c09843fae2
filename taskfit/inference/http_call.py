"""One call of a service, made until it succeeds or it is certain that it will not: limits, retries, checks.

What is retried: connections refused, reset or silent, and the states 408, 409, 425, 429 and 5xx, up to six times, after
twice the pause each time, with chance in it, or after what ``Retry-After`` says; replies that cannot be read, twice,
for they may have been paid. Everything else stops the run: no new call is begun, calls under way are let end.
"""

from __future__ import annotations

import asyncio
import datetime
import email.utils
import hashlib
import json
import random
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from taskfit.errors import ServiceError, SpendingError, TaskfitError
from taskfit.inference.http_wire import ReplyError, Usage, path_of, read_usage

if TYPE_CHECKING:
    import httpx2

    from taskfit.inference.http_limits import RateLimit, Spending
    from taskfit.models.service import Service

__all__ = ["Caller", "ContextError", "Retry"]

_T = TypeVar("_T")
_RETRIED = (408, 409, 425, 429)
_SHOWN = 200
_LENGTH = ("max_tokens", "max_completion_tokens")  # OpenAI's models that reason know only the second
_TOO_LONG = re.compile(r"context.?(length|window|size)|maximum context|prompt is too long|too many tokens", re.I)


@dataclass(frozen=True)
class Retry:
    """How often and how patiently a call is made again.

    Attributes:
        calls: most calls of one request, the first included.
        unreadable: most replies that cannot be read, of one request.
        first_s: seconds before the second call; doubled each time, and between half and all of that by chance.
        longest_s: most seconds to wait at once; a service that asks for more is given up.
        reply_bytes: largest reply that is read.
    """

    calls: int = 6
    unreadable: int = 2
    first_s: float = 0.5
    longest_s: float = 60.0
    reply_bytes: int = 16 * 2**20


class ContextError(ServiceError):
    """The service says that the prompt is longer than the model's context."""


class _FailedCall(Exception):  # noqa: N818  (never leaves this module)
    """One call came to nothing."""

    def __init__(
        self,
        error: ServiceError,
        *,
        is_retried: bool = False,
        is_unreadable: bool = False,
        is_billed: bool = False,
        is_renamed: bool = False,
        wait_s: float | None = None,
    ) -> None:
        super().__init__(error.message)
        self.error = error
        self.is_retried = is_retried
        self.is_unreadable = is_unreadable
        self.is_renamed = is_renamed  # the service calls the answer's greatest length otherwise
        self.is_billed = is_billed  # or may be: the answer was lost on the way
        self.wait_s = wait_s


class Caller:
    """Makes the calls of one run of an engine.

    Args:
        names: of fields that the service calls otherwise than the protocol's first version; grows as it says so.

    Attributes:
        stopped: the error after which no new call is begun, or None; see :meth:`stop`.
    """

    def __init__(
        self,
        service: Service,
        client: httpx2.AsyncClient,
        *,
        rate: RateLimit,
        spending: Spending,
        retry: Retry,
        names: dict[str, str],
        key: str,
    ) -> None:
        self._service, self._client, self._retry, self._key = service, client, retry, key
        self._names = names
        self._rate, self._spending = rate, spending
        self._places = asyncio.Semaphore(service.concurrency)
        self._queue, self._settled = asyncio.Lock(), asyncio.Event()
        self._under_way = 0
        self._resume_at = 0.0
        self._replies: dict[str, tuple[bytes, bytes]] = {}
        self._repeats_ids = False
        self._random = random.Random()
        self._stop = asyncio.Event()
        self.stopped: TaskfitError | None = None

    def stop(self, error: TaskfitError) -> None:
        """Let no new call begin; the first error counts."""
        self.stopped = self.stopped or error
        self._stop.set()
        self._settled.set()

    async def post(
        self, body: Mapping[str, Any], read: Callable[[Mapping[str, Any], Usage], _T], spent: Callable[[Usage], None]
    ) -> _T:
        """Make a call until its reply can be read.

        Args:
            body: of the request, as plain JSON values.
            read: makes the response of reply and usage; raises ReplyError where it cannot.
            spent: is told what each reply was billed.

        Raises:
            ServiceError: there is no hope, or another call of this run has failed for good.
        """
        calls = unreadable = 0
        while True:
            named = {self._names.get(name, name): value for name, value in body.items()}
            content = json.dumps(named, ensure_ascii=True, allow_nan=False).encode("ascii")
            try:
                return await self._call(content, _most(body, content), read, spent)
            except _FailedCall as failure:
                if failure.is_renamed and _LENGTH[0] in named:
                    self._names[_LENGTH[0]] = _LENGTH[1]
                    continue
                calls += 1
                unreadable += failure.is_unreadable
                error = failure.error
                gives_up = calls >= self._retry.calls or unreadable > self._retry.unreadable
                if not failure.is_retried or gives_up:
                    tried = f" ({calls} tries)" if calls > 1 else ""
                    raise type(error)(f"{error.message}{tried}", error.hint, status=error.status) from None
                await self._pause(calls, failure)

    async def _call(
        self,
        content: bytes,
        most: Usage,
        read: Callable[[Mapping[str, Any], Usage], _T],
        spent: Callable[[Usage], None],
    ) -> _T:
        async with self._places:
            await self._wait_for_turn(content, most)
            self._under_way += 1
            real = most
            try:
                reply = await self._exchange(content)
                real = read_usage(reply) or _guess(content, reply)
                spent(real)
                self._check_new(content, reply)
                return read(reply, real)
            except ReplyError as error:
                raise _FailedCall(
                    ServiceError(f"{self._service.host}: {error.message}"), is_retried=True, is_unreadable=True
                ) from None
            except _FailedCall as failure:
                real = most if failure.is_billed else Usage()
                raise
            finally:
                self._under_way -= 1
                self._spending.settle(most, real)
                self._settled.set()

    async def _wait_for_turn(self, content: bytes, most: Usage) -> None:
        loop = asyncio.get_running_loop()
        self._check_stopped()
        while (seconds := self._resume_at - loop.time()) > 0:
            await self._sleep(seconds)
            self._check_stopped()
        await self._rate.wait(len(content) // 4 + most.answer, self._queue)
        while True:
            self._check_stopped()
            try:
                return self._spending.reserve(most)
            except SpendingError:
                if self._under_way == 0:
                    raise
            self._settled.clear()  # calls under way are counted at their most: wait for what they really take
            await self._settled.wait()

    def _check_stopped(self) -> None:
        if self.stopped is not None:
            raise ServiceError("stopped", status=-1)

    async def _pause(self, calls: int, failure: _FailedCall) -> None:
        seconds = min(self._retry.longest_s, self._retry.first_s * 2 ** (calls - 1))
        seconds *= self._random.uniform(0.5, 1.0)
        if failure.wait_s is not None:
            seconds = failure.wait_s
            self._resume_at = max(self._resume_at, asyncio.get_running_loop().time() + seconds)
        await self._sleep(seconds)

    async def _sleep(self, seconds: float) -> None:
        """Wait, but not when the run is stopped meanwhile."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), seconds)

    async def _exchange(self, content: bytes) -> Mapping[str, Any]:
        """Send once; return the reply's JSON object."""
        import httpx2

        host = self._service.host
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        is_begun = False
        try:
            async with asyncio.timeout(self._service.timeout_s):
                url = self._service.base_url + path_of(self._service)
                async with self._client.stream("POST", url, content=content, headers=headers) as reply:
                    is_begun = reply.status_code == 200
                    text = await self._body(reply)
                    self._check_status(reply, text)
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.ProxyError):
            lost = ServiceError(f"{host} cannot be reached", "Is the address right, and the service running?")
            raise _FailedCall(lost, is_retried=True) from None
        except (TimeoutError, httpx2.TimeoutException):
            lost = ServiceError(f"{host} did not answer within {self._service.timeout_s:g} s", "Raise timeout_s.")
            raise _FailedCall(lost, is_retried=True, is_billed=True) from None
        except httpx2.InvalidURL as error:
            raise _FailedCall(ServiceError(f"{host[:_SHOWN]} is no host that can be asked: {error}")) from None
        except httpx2.DecodingError:
            lost = ServiceError(f"{host} sent a reply that cannot be unpacked")
            raise _FailedCall(lost, is_retried=True, is_unreadable=True, is_billed=True) from None
        except httpx2.TransportError as error:
            lost = ServiceError(f"{host} broke the connection off ({type(error).__name__})")
            raise _FailedCall(lost, is_retried=True, is_unreadable=is_begun, is_billed=True) from None
        try:
            values = json.loads(text)
        except (ValueError, RecursionError):
            values = None
        if not isinstance(values, dict):
            unreadable = ServiceError(f"{host} answered with something else than a JSON object")
            raise _FailedCall(unreadable, is_retried=True, is_unreadable=True, is_billed=True)
        return values

    async def _body(self, reply: httpx2.Response) -> bytes:
        parts, size = [], 0
        async for part in reply.aiter_bytes():
            size += len(part)
            if size > self._retry.reply_bytes:
                too_large = ServiceError(f"{self._service.host} sent more than {self._retry.reply_bytes} bytes")
                raise _FailedCall(too_large, is_billed=True)
            parts.append(part)
        return b"".join(parts)

    def _check_status(self, reply: httpx2.Response, text: bytes) -> None:
        status, service = reply.status_code, self._service
        if status == 200:
            return
        said = self._said(text)
        words, hint = f"{service.host} answered with status {status}{said}", None
        kind: type[ServiceError] = ServiceError
        is_retried = status in _RETRIED or status >= 500
        wait_s = _retry_after(reply.headers.get("retry-after")) if is_retried else None
        if status in (401, 403):
            hint = f"Is the key in {service.key} right?" if service.key else "Name the key's variable: ?key=VARIABLE"
        elif status == 404:
            hint = f"Is {service.base_url} the address up to /v1, and {service.model!r} a model there?"
        elif 300 <= status < 400:
            hint = "Redirects are not followed: give the address that it redirects to."
        elif status < 500 and _TOO_LONG.search(said):
            kind = ContextError
        elif status == 429 and "insufficient_quota" in said:
            is_retried, hint = False, "The account has nothing left."
        if wait_s is not None and wait_s > self._retry.longest_s:
            is_retried = False
            words += f"; it asks to wait {wait_s:.0f} s"
        is_renamed = status in (400, 422) and all(name in said for name in _LENGTH)
        error = kind(words, hint, status=status)
        raise _FailedCall(error, is_retried=is_retried, is_renamed=is_renamed, wait_s=wait_s)

    def _said(self, text: bytes) -> str:
        """Return the service's own words, short, on one line, without the key should they hold it."""
        try:
            values = json.loads(text)
        except (ValueError, RecursionError):
            values = None
        error = values.get("error", values) if isinstance(values, dict) else values
        parts = [error.get("code"), error.get("message")] if isinstance(error, dict) else [error]
        words = ": ".join(str(part) for part in parts if part)
        if self._key:
            words = words.replace(self._key, "***")
        line = "".join(character if character.isprintable() else " " for character in words)[:_SHOWN]
        return f" ({line})" if line else ""

    def _check_new(self, content: bytes, reply: Mapping[str, Any]) -> None:
        """Refuse a reply that was given before, to another request: something between us mixes answers up.

        Services that give all replies one id are known by two replies that differ under it; then nothing can be told.
        """
        name = reply.get("id")
        if not isinstance(name, str) or not name or self._repeats_ids:
            return
        asked = hashlib.sha256(content).digest()
        body = hashlib.sha256(json.dumps(reply, sort_keys=True).encode("utf-8", "surrogatepass")).digest()
        earlier = self._replies.setdefault(name, (asked, body))
        if earlier[1] != body:
            self._repeats_ids = True
        elif earlier[0] != asked:
            raise ReplyError(f"gave one reply (id {name[:40]!r}) to two different requests")


def _most(body: Mapping[str, Any], content: bytes) -> Usage:
    """The most tokens a call can take: no token of text is shorter than a byte, and each turn adds a few."""
    turns = body.get("messages", ())
    return Usage(prompt=len(content) + 16 * (1 + len(turns)), answer=int(body["max_tokens"]))


def _guess(content: bytes, reply: Mapping[str, Any]) -> Usage:
    """Tokens where the service does not say: four bytes each."""
    choices = reply.get("choices")
    return Usage(len(content) // 4 + 1, len(json.dumps(choices)) // 4 + 1)


def _retry_after(value: str | None) -> float | None:
    """Return the seconds of a Retry-After header: a number, or a date."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            date = email.utils.parsedate_to_datetime(value)
        except ValueError:
            return None
        now = datetime.datetime.now(datetime.UTC)
        seconds = ((date if date.tzinfo else date.replace(tzinfo=datetime.UTC)) - now).total_seconds()
    return max(0.0, seconds) if seconds == seconds and seconds != float("inf") else None
