"""Answers of a server that speaks OpenAI's chat protocol, such as vLLM."""

import base64
import io
import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, final

import httpx
from PIL import Image

from hpa_merge.addresses import credentials, read_address, read_key, without_secrets
from hpa_merge.calibration import Sample, Turn
from hpa_merge.calibration.images import open_images
from hpa_merge.errors import EvaluationError

__all__ = ["Endpoint"]

TRANSIENT = (408, 409, 425, 429, 500, 502, 503, 504)
"""Statuses after which the same request may succeed."""

LONGEST_WAIT = 30.0
"""Seconds between two tries at most, whatever the server asks for."""


@final
class Endpoint:
    """A model behind an endpoint; :class:`hpa_merge.evaluation.judges.Answerer`.

    Every request is greedy (``temperature`` 0) with a fixed seed; whether the answers are the same each time is the
    server's affair. Images go as they are given to a model that is loaded here: upright, in RGB, as PNG in a data URL.
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
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """
        Args:
            url: what comes before ``/chat/completions``: ``http://localhost:8000/v1``. A user and a password in it
                go to the server, and are shown nowhere.
            model: the name that the server has for it.
            concurrency: requests under way at once.
            timeout: seconds that the server may take for an answer.
            retries: how often a request is repeated after the connection failed or the server was busy.

        Raises:
            EvaluationError: the address is none, or the key cannot be one.
        """
        self.window = 8 * concurrency
        self._url, self._model = read_address(url).rstrip("/"), model
        self._max_new_tokens, self._retries, self._sleep = max_new_tokens, retries, sleep
        self._concurrency = concurrency
        key = read_key()
        self._client = httpx.Client(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            auth=credentials(url),
            timeout=httpx.Timeout(timeout, connect=min(timeout, 10.0)),
            limits=httpx.Limits(max_connections=concurrency),
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def answer(self, prompts: Sequence[Sample]) -> list[str]:
        """An answer for each prompt, in their order.

        Raises:
            CalibrationError: an image cannot be read.
            EvaluationError: the server does not answer as the protocol has it, or not in time.
        """
        pool = ThreadPoolExecutor(self._concurrency)
        try:
            return list(pool.map(self._one, prompts))
        finally:
            pool.shutdown(cancel_futures=True)

    def _one(self, prompt: Sample) -> str:
        """One request, repeated where that may help."""
        images = iter(open_images(prompt))
        seen = [[next(images) for part in turn.parts if isinstance(part, Path)] for turn in prompt.turns]
        body = {
            "model": self._model,
            "messages": [_message(turn, shown) for turn, shown in zip(prompt.turns, seen, strict=True)],
            "max_tokens": self._max_new_tokens,
            "temperature": 0,
            "seed": 0,
        }
        for tried in range(self._retries + 1):
            last = tried == self._retries
            try:
                response = self._client.post(f"{self._url}/chat/completions", json=body)
            except httpx.TransportError as error:
                if last or isinstance(error, httpx.UnsupportedProtocol):
                    why = without_secrets(str(error)) or type(error).__name__
                    raise EvaluationError(
                        f"the endpoint {self._url} cannot be reached ({why}; "
                        f"tried {tried + 1} times): see that the server runs, or raise --timeout."
                    ) from error
                self._sleep(_pause(tried, None))
                continue
            if response.status_code in TRANSIENT and not last:
                self._sleep(_pause(tried, response.headers.get("retry-after")))
                continue
            return self._text(response, prompt)
        raise AssertionError("the last try returns or raises")

    def _text(self, response: httpx.Response, prompt: Sample) -> str:
        """The answer in a response.

        Raises:
            EvaluationError: there is none.
        """
        if response.status_code != httpx.codes.OK:
            raise EvaluationError(
                f"the endpoint {self._url} answers {response.status_code} for {prompt.source} and the model "
                f"{self._model} ({_first_line(response.text)}): mend the request or the server."
            )
        try:
            message = response.json()["choices"][0]["message"]
            text = message.get("content") or message.get("refusal") or ""
            if not isinstance(text, str):
                raise ValueError(f"the content is {text!r:.40}")
        except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
            raise EvaluationError(
                f"the endpoint {self._url} answers {prompt.source} with something else than a chat completion "
                f"({_first_line(response.text)}): give the address that comes before /chat/completions."
            ) from error
        return text.strip()


def _message(turn: Turn, images: Sequence[Image.Image]) -> dict[str, Any]:
    """A turn as the protocol has it: a text, or parts where there are images."""
    if not images:
        return {"role": turn.role, "content": "\n".join(str(part) for part in turn.parts)}
    waiting = iter(images)
    parts = [
        {"type": "text", "text": part}
        if isinstance(part, str)
        else {"type": "image_url", "image_url": {"url": _data_url(next(waiting))}}
        for part in turn.parts
    ]
    return {"role": turn.role, "content": parts}


def _data_url(image: Image.Image) -> str:
    content = io.BytesIO()
    image.save(content, "PNG")
    return f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode('ascii')}"


def _pause(tried: int, wanted: str | None) -> float:
    """Seconds before the next try: what the server asks for, or twice as long as before, with some chance in it."""
    try:
        seconds = float(wanted) if wanted is not None else 2.0**tried * random.uniform(0.5, 1.0)
    except ValueError:  # a date
        seconds = 2.0**tried
    return min(max(seconds, 0.0), LONGEST_WAIT)


def _first_line(text: str) -> str:
    return without_secrets(" ".join(text.split()))[:120] or "nothing"
