"""A service on this machine that speaks OpenAI's protocol, answers from functions, and fails on request.

>>> with FakeService(answer=lambda text: "yes") as service:   # doctest: +SKIP
...     model = taskfit.models.load(service.name())
"""

from __future__ import annotations

import hashlib
import json
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast
from urllib.parse import urlencode

__all__ = ["FAULTS", "FakeService", "Fault", "hashed_logprob"]


@dataclass(frozen=True)
class Fault:
    """One way in which a service fails.

    Attributes:
        status: of the reply.
        headers: more headers of the reply.
        body: sent instead of an answer; None: the answer, or for states other than 200 an error object.
        change: makes another reply of the right one.
        delay_s: seconds before the reply.
        is_half: only half of the body is sent, then the connection is closed.
        is_reset: the connection is reset without a reply.
        is_silent: nothing is sent until the service is closed.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    change: Callable[[dict[str, Any]], dict[str, Any]] | None = None
    delay_s: float = 0.0
    is_half: bool = False
    is_reset: bool = False
    is_silent: bool = False


def _twice(reply: dict[str, Any]) -> dict[str, Any]:
    return reply | {"choices": reply["choices"] * 2}


FAULTS: dict[str, Fault] = {
    "slow": Fault(delay_s=0.2),
    "busy": Fault(429, {"Retry-After": "0.01"}),
    "busy, no hint": Fault(429),
    "broken": Fault(500),
    "overloaded": Fault(503, {"Retry-After": "0"}),
    "half a body": Fault(is_half=True),
    "wrong JSON": Fault(body=b'{"choices": [}'),
    "no object": Fault(body=b"[1, 2]"),
    "wrong shape": Fault(body=b'{"choices": {"text": "yes"}}'),
    "no choice": Fault(body=b'{"choices": []}'),
    "two choices": Fault(change=_twice),
    "reset": Fault(is_reset=True),
    "silent": Fault(is_silent=True),
    "huge": Fault(body=b'{"choices": "' + b"x" * 2_000_000 + b'"}'),
    "deep": Fault(body=b"[" * 200_000),
    "moved": Fault(307, {"Location": "http://127.0.0.1:9/v1"}),
    "refused": Fault(400),
}
"""Named faults; each reply of a service can have one."""


class FakeService:
    """A service on a free port of this machine, in threads of its own; a context manager.

    Args:
        answer: from the question's text (the last turn, or the whole prompt) to the generated text.
        logprob: from the text before and a token to the token's log-probability; None: the service offers no
            log-probabilities. Its tokens are words with the space before them.
        faults: one for each call to come, in order: a :class:`Fault`, a name in ``FAULTS``, or None for a call that
            goes well; later calls go well.
        models: names of the models it has.
        key: what it takes for a key; None: it asks for none.
        context: words of a prompt above which it refuses.
        ids: gives each reply its id; None: they are numbered.

    Attributes:
        bodies: of every call, refused ones included, in order.
        headers: of every call, with lower-case names.
        answered: number of calls that were answered with status 200, in whatever shape: what would be billed.
    """

    def __init__(
        self,
        answer: Callable[[str], str] = lambda text: "yes",
        *,
        logprob: Callable[[str, str], float] | None = None,
        faults: Iterable[Fault | str | None] = (),
        models: Iterable[str] = ("fake",),
        key: str | None = None,
        context: int = 10**9,
        ids: Callable[[int], str] | None = None,
    ) -> None:
        self.answer, self.logprob = answer, logprob
        self.faults = [FAULTS[one] if isinstance(one, str) else one for one in faults]
        self.models, self.key, self.context = tuple(models), key, context
        self.ids = ids or "fake-{}".format
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.answered = 0
        self.lock, self.closing = threading.Lock(), threading.Event()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.service = self
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    def __enter__(self) -> FakeService:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def base_url(self) -> str:
        """The address up to and with ``/v1``."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def name(self, model: str | None = None, **options: object) -> str:
        """Return the name by which a user calls a model of this service, with these options."""
        query = f"?{urlencode(options)}" if options else ""
        return f"{self.base_url}{query}#{model or self.models[0]}"

    def reply(self, path: str, body: Mapping[str, Any], number: int) -> dict[str, Any]:
        """Return the right reply to a call."""
        is_chat = path.endswith("/chat/completions")
        prompt = body["messages"][-1]["content"] if is_chat else body["prompt"]
        words = " ".join(m["content"] for m in body["messages"]) if is_chat else prompt
        text = self.answer(prompt)
        tokens = _tokens(text)
        room = body.get("max_tokens") or body["max_completion_tokens"]
        finish = "length" if len(tokens) > room else "stop"
        text = "".join(tokens[:room])
        choice: dict[str, Any] = {"index": 0, "finish_reason": finish}
        choice |= {"message": {"role": "assistant", "content": text}} if is_chat else {"text": text}
        if self.logprob is not None and body.get("logprobs"):
            choice["logprobs"] = self._logprobs(is_chat, body, prompt)
        usage = {"prompt_tokens": len(_tokens(words)), "completion_tokens": len(_tokens(text))}
        return {
            "id": self.ids(number),
            "created": 1,
            "model": body["model"],
            "choices": [choice],
            "usage": usage,
        }

    def _logprobs(self, is_chat: bool, body: Mapping[str, Any], prompt: str) -> dict[str, Any]:
        assert self.logprob is not None
        if body.get("echo"):
            tokens = _tokens(prompt)
            starts = ["".join(tokens[:n]) for n in range(len(tokens))]
            scores = [None, *(self.logprob(a, b) for a, b in zip(starts[1:], tokens[1:], strict=True))]
            return {"tokens": [*tokens, " next"], "token_logprobs": [*scores, -1.0]}
        likely = sorted(((self.logprob(prompt, word), word) for word in _WORDS), reverse=True)
        top = likely[: body["top_logprobs"] if is_chat else body["logprobs"]]
        if is_chat:
            return {"content": [{"top_logprobs": [{"token": word, "logprob": score} for score, word in top]}]}
        return {"top_logprobs": [{" " + word: score for score, word in top}]}


_WORDS = ("yes", "no", "positive", "negative", "world", "sports", "business", "tech", "the", "a", "is", "maybe", "good")


def hashed_logprob(before: str, token: str) -> float:
    """Return a log-probability that hangs on all of the text before, and nothing else."""
    digest = hashlib.sha256(f"{before}\0{token}".encode()).digest()
    return -int.from_bytes(digest[:2], "big") / 4096


def _tokens(text: str) -> list[str]:
    return re.findall(r"\s*\S+|\s+$", text)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    service: FakeService

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of clients that went away."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""

    @property
    def _service(self) -> FakeService:
        return cast("_Server", self.server).service

    def do_GET(self) -> None:
        self._send(200, {"data": [{"id": name} for name in self._service.models]})

    def do_POST(self) -> None:
        service = self._service
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with service.lock:
            number = len(service.bodies)
            service.bodies.append(body)
            service.headers.append({name.lower(): value for name, value in self.headers.items()})
        fault = service.faults[number] if number < len(service.faults) else None
        fault = fault or self._refusal(body) or Fault()
        self._fail_or_answer(fault, body, number)

    def _refusal(self, body: Mapping[str, Any]) -> Fault | None:
        service = self._service
        sent = self.headers.get("Authorization", "")
        if service.key is not None and sent != f"Bearer {service.key}":
            return Fault(401, body=json.dumps({"error": {"message": f"wrong key {sent[7:]}"}}).encode())
        if body["model"] not in service.models:
            return Fault(404, body=json.dumps({"error": {"message": f"no model {body['model']}"}}).encode())
        text = json.dumps(body.get("messages", body.get("prompt")))
        if len(text.split()) > service.context:
            message = f"This model's maximum context length is {service.context} tokens"
            return Fault(400, body=json.dumps({"error": {"message": message}}).encode())
        return None

    def _fail_or_answer(self, fault: Fault, body: Mapping[str, Any], number: int) -> None:
        service = self._service
        if fault.is_silent:
            service.closing.wait()
            self.close_connection = True
            return
        if fault.is_reset:
            # Lingering for no time makes closing a reset.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True
            return
        time.sleep(fault.delay_s)
        if fault.status == 200:
            with service.lock:
                service.answered += 1
        if fault.body is None and fault.status == 200:
            reply = service.reply(self.path, body, number)
            content = json.dumps(fault.change(reply) if fault.change else reply).encode()
        else:
            content = fault.body if fault.body is not None else b'{"error": {"message": "on purpose"}}'
        self._send_bytes(fault.status, content, fault.headers, is_half=fault.is_half)

    def _send(self, status: int, values: object) -> None:
        self._send_bytes(status, json.dumps(values).encode(), {})

    def _send_bytes(self, status: int, content: bytes, headers: Mapping[str, str], *, is_half: bool = False) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if is_half else content)
        self.wfile.flush()
        self.close_connection = self.close_connection or is_half
