"""The engine that asks a service over HTTP, in OpenAI's protocol."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

from taskfit.errors import ConfigError, EngineError, NoScoresError, ServiceError
from taskfit.inference.http_call import Caller, ContextError, Retry
from taskfit.inference.http_check import read_key
from taskfit.inference.http_limits import RateLimit, Spending
from taskfit.inference.http_wire import (
    Usage,
    echo_bodies,
    generate_body,
    read_echo,
    read_generated,
    read_top,
    top_body,
)
from taskfit.inference.request_json import request_key
from taskfit.inference.requests import Request, Response, Score
from taskfit.models.work import Work

if TYPE_CHECKING:
    from collections.abc import Mapping

    from taskfit.models.service import ServiceModel

__all__ = ["HttpEngine", "Keep"]

Keep = Callable[[Request, Response, Work], None]
"""Takes a request, its response and what it was billed, as soon as the response is there."""


class HttpEngine:
    """Answers requests through a service: several at once, within limits, each paid for once.

    Equal requests of one call are sent once. Replies are checked as input from strangers. The key is read from the
    environment when :meth:`run` is called, goes into one header, and nowhere else. TLS certificates are verified,
    redirects are not followed. Proxies of the environment (``HTTPS_PROXY``, ``NO_PROXY``) are used, except for
    services on this machine.

    A service's tokenizer is not known here: control tokens inside a text are the service's to disarm, prompts are cut
    only when the service says that they are too long (worked examples go first), and a repeated request need not give
    the same answer, whatever its seed: few services promise that.

    Args:
        model: the service and the model there.
        retry: how often calls are made again.

    Attributes:
        keep: is called with every response as it comes, so that it outlives a crash.

    Raises:
        ConfigError: there is a cap in money and no price.
    """

    kind = "http"

    def __init__(self, model: ServiceModel, *, retry: Retry | None = None) -> None:
        service = model.service
        self._service, self._retry = service, retry or Retry()
        price = model.usd_per_mtok
        if service.max_usd is not None and price is None:
            raise ConfigError(
                f"max_usd of {service.host} needs a price", "Give usd_in and usd_out, in US dollars per million tokens."
            )
        usd_in, usd_out = price or (0.0, 0.0)
        if model.limits is None:  # a strategy that asks while it fits and again while it predicts has one purse
            model.limits = (
                Spending(usd_in, usd_out, service.max_usd, service.max_tokens),
                RateLimit(service.requests_per_minute, service.tokens_per_minute),
            )
        self._spending, self._rate = cast("tuple[Spending, RateLimit]", model.limits)
        self._names: dict[str, str] = {}
        self._scores: str = service.scores if service.scores != "auto" else ""
        self._work = Work()
        self.keep: Keep = _keep_nothing

    def identity(self) -> Mapping[str, str]:
        """Return what decides the answers, for :class:`taskfit.inference.response_cache.CachedEngine`."""
        return {"engine": "http 1", "model": self._service.fingerprint}

    @property
    def work(self) -> Work:
        """Tokens that the service has billed so far, those of replies that could not be used included."""
        return self._work

    @property
    def spent_usd(self) -> float:
        """US dollars spent on this model so far; a call whose answer was lost counts as the most it could cost."""
        return self._spending.usd

    def run(self, requests: Sequence[Request]) -> list[Response]:
        """Answer all requests, in order.

        Raises:
            NoScoresError: a Score was asked, and the service offers no log-probabilities for it.
            SpendingError: a cap is reached. ServiceError: the service cannot be reached, refuses, or answers
                nonsense. Both hold the answers that were paid for.
            EngineError: a request asks for nothing.
        """
        _check(requests)
        first: dict[bytes, int] = {}
        places = [first.setdefault(request_key(request), number) for number, request in enumerate(requests)]
        asked = {number: requests[number] for number in first.values()}
        answers, error = _finish(self._answer_all(asked)) if asked else ({}, None)
        if isinstance(error, ServiceError):
            error.answers = {n: answers[place] for n, place in enumerate(places) if place in answers}
        if error is not None:
            raise error
        return [answers[place] for place in places]

    async def _answer_all(self, asked: dict[int, Request]) -> tuple[dict[int, Response], BaseException | None]:
        """Answer; return the answers, and the first error where not all could be had."""
        import httpx2

        is_local = self._service.is_local
        limits = httpx2.Limits(max_connections=self._service.concurrency)
        async with httpx2.AsyncClient(timeout=None, trust_env=not is_local, limits=limits) as client:
            caller = Caller(
                self._service,
                client,
                rate=self._rate,
                spending=self._spending,
                retry=self._retry,
                names=self._names,
                key=read_key(self._service),
            )
            answers: dict[int, Response] = {}
            scores = [number for number, request in asked.items() if isinstance(request, Score)]
            waves = (
                [scores[:1], [n for n in asked if n not in scores[:1]]] if scores and not self._scores else [[*asked]]
            )
            for wave in waves:  # the first score shows what the service offers
                await asyncio.gather(*(self._one(caller, n, asked[n], answers) for n in wave))
            return answers, caller.stopped

    async def _one(self, caller: Caller, number: int, request: Request, answers: dict[int, Response]) -> None:
        """Answer one request; the first error stops the caller."""
        if caller.stopped is not None:
            return
        spent = _Spent()
        try:
            answer = await self._fitted(caller, request, spent)
            answers[number] = answer
            self.keep(request, answer, spent.work)
        except EngineError as error:
            caller.stop(error)
        finally:
            self._work += spent.work

    async def _fitted(self, caller: Caller, request: Request, spent: _Spent) -> Response:
        """Answer; where the service finds the prompt too long, drop worked examples, the first ones first."""
        dropped, asked = 0, request
        while True:
            try:
                answer = await self._answer(caller, asked, spent)
            except ContextError:
                left = len(asked.prompt.shots)
                if left == 0:
                    raise
                more = (left + 1) // 2
                dropped += more
                asked = replace(asked, prompt=replace(asked.prompt, shots=asked.prompt.shots[more:]))
            else:
                spent.work += Work(dropped_shots=dropped)
                return replace(answer, dropped_shots=dropped)

    async def _answer(self, caller: Caller, request: Request, spent: _Spent) -> Response:
        service = self._service
        if not isinstance(request, Score):
            body = generate_body(service, request)
            return await caller.post(body, lambda reply, usage: read_generated(request, reply, usage), spent.add)
        ways = {"echo": self._echo, "top": self._top}
        if self._scores == "none":
            raise NoScoresError(f"{service.host} is said to offer no log-probabilities (scores=none)")
        if self._scores:
            return await ways[self._scores](caller, request, spent)
        refused: list[str] = []
        for name in ("top",) if service.style == "chat" else ("echo", "top"):
            try:
                answer = await ways[name](caller, request, spent)
            except ContextError:
                raise
            except (NoScoresError, ServiceError) as error:
                if isinstance(error, ServiceError) and error.status not in (400, 422, 501):
                    raise
                refused.append(error.message)
            else:
                self._scores = name
                return answer
        raise NoScoresError(f"{service.host} offers no log-probabilities that would do: {'; '.join(refused)}")

    async def _top(self, caller: Caller, request: Score, spent: _Spent) -> Response:
        body = top_body(self._service, request)
        return await caller.post(body, lambda reply, usage: read_top(request, reply, usage), spent.add)

    async def _echo(self, caller: Caller, request: Score, spent: _Spent) -> Response:
        async def ask(number: int, body: Mapping[str, Any]) -> Mapping[str, Any]:
            alone = replace(request, continuations=(request.continuations[number],))

            def read(reply: Mapping[str, Any], usage: Usage) -> Mapping[str, Any]:
                read_echo(alone, [reply])  # is it an echo at all? otherwise it is asked for again
                return reply

            return await caller.post(body, read, spent.add)

        bodies = echo_bodies(self._service, request)
        first = await ask(0, bodies[0])  # the others are paid for only where this one shows scores
        others = await asyncio.gather(*(ask(n, body) for n, body in enumerate(bodies) if n), return_exceptions=True)
        for other in others:
            if isinstance(other, BaseException):
                raise other
        return read_echo(request, [first, *(other for other in others if not isinstance(other, BaseException))])


@dataclass
class _Spent:
    """What one request was billed."""

    work: Work = field(default_factory=Work)

    def add(self, usage: Usage) -> None:
        self.work += Work(
            prompt_tokens=usage.prompt,
            answer_tokens=usage.answer,
            service_prompt_tokens=usage.prompt,
            service_answer_tokens=usage.answer,
            paid_prompt_tokens=usage.prompt,
            paid_answer_tokens=usage.answer,
        )


def _keep_nothing(request: Request, response: Response, billed: Work) -> None:
    """Keep no answer."""


def _check(requests: Sequence[Request]) -> None:
    for request in requests:
        if isinstance(request, Score):
            if not request.continuations or "" in request.continuations:
                raise EngineError(
                    f"a Score request needs continuations, none of them empty (got {request.continuations})"
                )
            if len(set(request.continuations)) < len(request.continuations):
                raise EngineError(f"two continuations are the same: {request.continuations}")
        elif request.max_tokens < 1 or "" in request.stop:
            raise EngineError("a Generate request needs max_tokens of at least 1, and no empty stop text")


def _finish(work: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine to its end, in a thread of its own where a loop runs already (notebooks)."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()
