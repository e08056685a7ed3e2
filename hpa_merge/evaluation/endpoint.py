"""Answers of a server that speaks OpenAI's chat protocol, such as vLLM.

The server is not trusted: what it sends is bounded in bytes and in time, is not decompressed, and redirects nobody.
"""

import asyncio
import base64
import json
import random
import re
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

from huggingface_hub.utils import httpx

from hpa_merge.calibration.media.sending import SendingProcess
from hpa_merge.errors import EvaluationError
from hpa_merge.files.parsing import ANSWER, parse_json
from hpa_merge.inputs.secrets import credentials, read_address, read_key, secrets_of, without_secrets
from hpa_merge.records import Media, Sample, Turn
from hpa_merge.records.sample import MediaKind

__all__ = ["Endpoint"]

TRANSIENT = (408, 409, 425, 429, 500, 502, 503, 504)
"""Statuses after which the same request may succeed."""

LONGEST_WAIT = 30.0
"""Seconds between two tries at most, whatever the server asks for."""

TIMEOUTS = 2
"""How often one answer may be late: a connection that was lost without a word is worth another try, a slow server is
not."""

COMPLAINT_BYTES = 2**16
"""What is read of a body that says why there is no answer."""

TOKEN_CHARACTERS = 256
"""More than a token stands for in any vocabulary, so that an answer's length follows from ``max_tokens``."""


@final
@dataclass(frozen=True)
class _Reply:
    """What a server sent: its status, its headers, and its body as far as it was read."""

    status: int
    headers: httpx.Headers
    body: bytes


@final
class Endpoint:
    """A model behind an endpoint; :class:`hpa_merge.evaluation.judges.Answerer`.

    Every request is greedy (``temperature`` 0) with a fixed seed; whether the answers are the same each time is the
    server's affair. Images go as they are given to a model that is loaded here: upright, in RGB, as PNG in a data URL;
    sounds as WAV of one channel; videos not at all.

    The requests run in an event loop on a thread of its own, which a timeout or an interruption cancels at any moment,
    whatever the server does, and which works where the caller has an event loop too.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        max_new_tokens: int = 128,
        concurrency: int = 8,
        timeout: float = 120.0,
        retries: int = 4,
        arguments: Mapping[str, Any] | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """
        Args:
            url: what comes before ``/chat/completions``: ``http://localhost:8000/v1``. A user and a password in it
                go to the server, and are shown nowhere.
            model: the name that the server has for it.
            concurrency: requests under way at once.
            timeout: seconds that an answer may take, from the connection to its last byte.
            retries: how often a request is repeated after the connection failed or the server was busy.
            arguments: what the server is to give the model's chat template, as vLLM and SGLang take it.

        Raises:
            EvaluationError: the address or the key cannot be used.
        """
        self.window = 8 * concurrency
        self._url, self._model = read_address(url).rstrip("/"), model
        self._max_new_tokens, self._retries, self._sleep = max_new_tokens, retries, sleep
        self._timeout = timeout
        self._arguments = dict(arguments or {})
        self._secrets = secrets_of(url)
        self._media = SendingProcess()
        self._slots = asyncio.Semaphore(concurrency)
        key = read_key()
        headers = {"Accept-Encoding": "identity", "Content-Type": "application/json"}
        if key:
            headers["Authorization"] = f"Bearer {key}"
        try:
            self._place = httpx.URL(f"{self._url}/chat/completions")
            self._client = httpx.AsyncClient(
                headers=headers,
                auth=credentials(url),
                timeout=httpx.Timeout(None, connect=min(timeout, 10.0)),
                limits=httpx.Limits(max_connections=concurrency),
                follow_redirects=False,  # the key is for this server
            )
        except Exception as error:  # an address or a proxy that is none, a file of certificates that is not there
            raise EvaluationError(
                f"the endpoint {self._url} cannot be asked ({without_secrets(str(error), self._secrets)}): check the "
                "address, and the environment's proxies and certificates."
            ) from error
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Close the connections; a second time, do nothing."""
        if self._loop.is_closed():
            return
        self._media.close()
        asyncio.run_coroutine_threadsafe(self._client.aclose(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def answer(self, prompts: Sequence[Sample]) -> list[str]:
        """An answer for each prompt, in their order.

        Raises:
            CalibrationError: an image cannot be read.
            EvaluationError: the server does not answer as the protocol has it, or not in time.
        """
        answers = asyncio.run_coroutine_threadsafe(self._every(prompts), self._loop)
        try:
            return answers.result()
        finally:
            answers.cancel()  # where this thread was interrupted

    async def _every(self, prompts: Sequence[Sample]) -> list[str]:
        """The answers; the first failure ends all requests."""
        tasks = [asyncio.ensure_future(self._one(prompt)) for prompt in prompts]
        try:
            return await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()

    async def _one(self, prompt: Sample) -> str:
        """One request, repeated where that may help."""
        async with self._slots:
            request = await asyncio.to_thread(self._request, prompt)
            late = 0
            for tried in range(self._retries + 1):
                last = tried == self._retries
                try:
                    async with asyncio.timeout(self._timeout):
                        reply = await self._ask(request)
                except Exception as error:  # a name that cannot be looked up is refused by whatever looks it up
                    late += isinstance(error, TimeoutError)
                    repeatable = isinstance(error, httpx.TransportError | TimeoutError)
                    if last or late == TIMEOUTS or not repeatable or isinstance(error, httpx.UnsupportedProtocol):
                        raise self._unreachable(error, tried + 1) from error
                    await self._sleep(_pause(tried, None))
                    continue
                if reply.status in TRANSIENT and not last:
                    await self._sleep(_pause(tried, reply.headers.get("retry-after")))
                    continue
                return self._text(reply, prompt)
        raise AssertionError("the last try returns or raises")

    def _request(self, prompt: Sample) -> bytes:
        """The body of a request; its media, whose order is that of the turns, come from a child process."""
        contents = iter(self._media.encode(prompt))
        seen = [[next(contents) for part in turn.parts if isinstance(part, Media)] for turn in prompt.turns]
        body: dict[str, Any] = {
            "model": self._model,
            "messages": [_message(turn, shown) for turn, shown in zip(prompt.turns, seen, strict=True)],
            "max_tokens": self._max_new_tokens,
            "temperature": 0,
            "seed": 0,
            **({"tools": list(prompt.tools)} if prompt.tools else {}),
        }
        if self._arguments:
            body["chat_template_kwargs"] = self._arguments
        return json.dumps(body).encode("ascii")

    async def _ask(self, request: bytes) -> _Reply:
        """What the server sends, and no more of it than an answer can have.

        Raises:
            Exception: the connection fails; as httpx and what it stands on raise it.
        """
        async with self._client.stream("POST", self._place, content=request) as response:
            found = response.status_code == httpx.codes.OK
            most = ANSWER.size if found and not _coding(response.headers) else COMPLAINT_BYTES
            body = bytearray()
            async for part in response.aiter_raw():
                body += part
                if len(body) > most:
                    break
            return _Reply(response.status_code, response.headers, bytes(body[: most + 1]))

    def _text(self, reply: _Reply, prompt: Sample) -> str:
        """The answer in a reply.

        Raises:
            EvaluationError: there is none.
        """
        if 300 <= reply.status < 400:
            raise EvaluationError(
                f"the endpoint {self._url} redirects to another address (status {reply.status}), and the key is for "
                "this one alone: give the address that answers."
            )
        if reply.status != httpx.codes.OK:
            raise EvaluationError(
                f"the endpoint {self._url} answers {reply.status} for {prompt.source} and the model "
                f"{self._model} ({self._said(reply)}): fix the request or the server."
            )
        if coding := _coding(reply.headers):
            raise EvaluationError(
                f"the endpoint {self._url} compresses its answers ({coding:.20}), though it is asked not to: "
                "switch that off in the server or its proxy."
            )
        try:
            message = parse_json(reply.body, ANSWER)["choices"][0]["message"]
            text = _written(message)
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError, IndexError, TypeError, AttributeError) as error:
            raise EvaluationError(
                f"the endpoint {self._url} answers {prompt.source} with something else than a chat completion "
                f"({self._said(reply)}): give the address that comes before /chat/completions."
            ) from error
        except ValueError as error:
            raise EvaluationError(
                f"the endpoint {self._url} answers {prompt.source} with what cannot be read ({error}): "
                "fix the server, or lower --max-new-tokens."
            ) from error
        if len(text) > (most := TOKEN_CHARACTERS * self._max_new_tokens):
            raise EvaluationError(
                f"the endpoint {self._url} answers {prompt.source} with {len(text)} characters, and "
                f"{self._max_new_tokens} tokens have {most} at most: check that the server heeds max_tokens."
            )
        return text.strip()

    def _unreachable(self, error: Exception, tries: int) -> EvaluationError:
        """The error after the last try."""
        late = f"no whole answer within {self._timeout:g} seconds"
        reason = (
            late
            if isinstance(error, TimeoutError)
            else without_secrets(str(error), self._secrets) or type(error).__name__
        )
        return EvaluationError(
            f"the endpoint {self._url} cannot be reached ({reason}; tried {tries} times): check that the server runs, "
            "or raise --timeout."
        )

    def _said(self, reply: _Reply) -> str:
        """The beginning of a body, without the key, the user and the password, which a server may repeat."""
        text = "(compressed)" if _coding(reply.headers) else reply.body[:COMPLAINT_BYTES].decode("utf-8", "replace")
        return without_secrets(" ".join(text.split()), self._secrets)[:120] or "nothing"


def _written(message: Mapping[str, Any]) -> str:
    """An answer as the model wrote it; thoughts that the server keeps apart stand in their marks before it.

    Raises:
        TypeError: it is no text.
    """
    content = message.get("content") or message.get("refusal") or ""
    apart = [message.get(name) for name in ("reasoning_content", "reasoning")]
    thoughts = next((each for each in apart if isinstance(each, str)), "")
    if isinstance(content, list):  # parts, as Mistral's server sends them
        thoughts += "".join(_texts(part["thinking"]) for part in content if part["type"] == "thinking")
        content = _texts(content)
    if not isinstance(content, str):
        raise TypeError(f"the content is {content!r:.40}")
    return f"<think>{thoughts}{'</think>' if content else ''}{content}" if thoughts else content


def _texts(parts: Sequence[Mapping[str, Any]]) -> str:
    """The parts that are text, joined."""
    return "".join(part["text"] for part in parts if part["type"] == "text")


def _coding(headers: httpx.Headers) -> str:
    """How a body is compressed; empty where it is not."""
    coding = str(headers.get("content-encoding", "")).strip().lower()
    return "" if coding == "identity" else coding


def _message(turn: Turn, contents: Sequence[bytes]) -> dict[str, Any]:
    """A turn as the protocol has it: a text, or parts where there are media, whose ``contents`` are PNG and WAV."""
    if not contents:
        return {"role": turn.role, "content": "\n".join(turn.texts), **turn.extras}
    waiting = iter(contents)
    parts = [
        {"type": "text", "text": part} if isinstance(part, str) else _part(part.kind, next(waiting))
        for part in turn.parts
    ]
    return {"role": turn.role, "content": parts, **turn.extras}


def _part(kind: MediaKind, content: bytes) -> dict[str, Any]:
    data = base64.b64encode(content).decode("ascii")
    if kind == "audio":
        return {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}


def _pause(tried: int, wanted: str | None) -> float:
    """Seconds before the next try: what the server asks for, or twice as long as before, with some chance in it."""
    if wanted is not None and re.fullmatch(r"[0-9]{1,9}", wanted):  # else it is a date, or nonsense
        return min(float(wanted), LONGEST_WAIT)
    return min(2.0**tried * random.uniform(0.5, 1.0), LONGEST_WAIT)
