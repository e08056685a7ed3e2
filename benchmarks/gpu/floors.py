"""What no merge can undercut on this machine: forwards, Gram matrices, factorisations, reading and writing."""

import math
import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from cache import drop_from_cache, weights
from pair import disk_shapes
from shapes import Shape

CHUNK = 16 << 20
"""Bytes of one system call."""

WRITTEN = 4 * 10**9
"""Bytes written to measure the disk, at most."""

ROWS = 8192
"""Tokens multiplied at once to measure a Gram matrix, at most."""

BLOCKS = 4
"""Blocks that are run to measure a forward, at most."""


@dataclass(frozen=True)
class Input:
    """A distinct input of linears: so many of ``columns``, read by every token of a ``kind``."""

    kind: str
    count: int
    columns: int


def linear_inputs(shape: Shape) -> list[Input]:
    """q/k/v, o, gate/up and down of each block (fc1 and fc2 in the tower), the projector's two, and the head's."""
    text = shape.text
    width, layers = text["hidden_size"], text["num_hidden_layers"]
    inputs = [Input("text", 3 * layers + 1, width), Input("text", layers, text["intermediate_size"])]
    if shape.vision:
        tower = shape.vision
        inputs += [
            Input("patch", 3 * tower["num_hidden_layers"], tower["hidden_size"]),
            Input("patch", tower["num_hidden_layers"], tower["intermediate_size"]),
            Input("image", 1, tower["hidden_size"]),
            Input("image", 1, width),
        ]
    return inputs


def count_tokens(shape: Shape, merged: dict[str, Any], name: str) -> dict[str, int]:
    """Tokens of each kind in one calibration set, from what a merge says of it."""
    images = merged["images"][name]
    per_image = shape.image_tokens
    return {"text": merged["tokens"][name], "patch": images * (per_image + 1), "image": images * per_image}


class Rates:
    """What the device does in a second, measured when it is first asked for."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._half = torch.float32 if device == "cpu" else torch.bfloat16
        self._known: dict[tuple[Any, ...], float] = {}

    def gram(self, columns: int) -> float:
        """Flops a second of ``xᵀx``: bfloat16 with float32 output, on the CPU float32."""
        return self._once(("gram", columns), lambda: self._gram(columns))

    def factor_seconds(self, size: int) -> float:
        """Seconds of a float32 Cholesky factor, ``size³/3`` flops."""
        return self._once(("factor", size), lambda: self._factor(size))

    def product(self, half: bool, size: int = 8192) -> float:
        """Flops a second of a square matrix product: bfloat16, or float32."""
        dtype = torch.bfloat16 if half else torch.float32
        return self._once(("product", half), lambda: self._product(dtype, size if self._device != "cpu" else 1024))

    def _once(self, key: tuple[Any, ...], measure: Callable[[], float]) -> float:
        if key not in self._known:
            self._known[key] = measure()
            if self._device != "cpu":
                torch.cuda.empty_cache()
        return self._known[key]

    def _gram(self, columns: int) -> float:
        rows = min(ROWS, max(256, 10**10 // columns**2)) if self._device == "cpu" else ROWS
        x = torch.randn(rows, columns, device=self._device, dtype=self._half)
        kind = {} if self._device == "cpu" else {"out_dtype": torch.float32}
        return 2 * rows * columns**2 / timed(lambda: torch.mm(x.T, x, **kind), self._device)

    def _factor(self, size: int) -> float:
        x = torch.randn(size, 64, device=self._device)
        h = torch.mm(x, x.T).div_(64)
        h.diagonal().add_(1.0)
        return timed(lambda: torch.linalg.cholesky(h), self._device, repeats=3)

    def _product(self, dtype: torch.dtype, size: int) -> float:
        left, right = (torch.randn(size, size, device=self._device, dtype=dtype) for _ in range(2))
        return 2 * size**3 / timed(lambda: torch.mm(left, right), self._device)


def timed(work: Callable[[], Any], device: str, repeats: int = 7) -> float:
    """Median seconds, after one call that is not counted."""
    seconds = []
    for _ in range(repeats + 1):
        began = time.monotonic()
        work()
        if device != "cpu":
            torch.cuda.synchronize(device)
        seconds.append(time.monotonic() - began)
    return statistics.median(seconds[1:])


def forward_seconds(config: Any, class_: Any, device: str, inputs: Callable[[], dict[str, Any]]) -> float:
    """One sample through one stack: measured with one block and with a few, the difference carried on to all."""
    layers = config.num_hidden_layers
    few = min(layers, BLOCKS)
    seconds = {}
    for count in {1, few}:
        config.num_hidden_layers = count
        with torch.device(device):
            model = class_._from_config(config, dtype=torch.bfloat16).eval()
        arguments = inputs()
        with torch.no_grad():
            seconds[count] = timed(lambda m=model, a=arguments: [m(**a) for _ in range(4)], device) / 4
        del model, arguments
        if device != "cpu":
            torch.cuda.empty_cache()
    config.num_hidden_layers = layers
    block = max(0.0, seconds[few] - seconds[1]) / max(1, few - 1)
    return seconds[1] + block * (layers - 1)


def measure_forwards(shape: Shape, device: str) -> dict[str, float]:
    """Seconds of one sample of ``shape.tokens`` through the text stack, and of one image through the tower."""
    from transformers import CLIPVisionModel, LlamaModel

    config = shape.config()
    size = (1, shape.tokens, shape.text["hidden_size"])

    def embedded() -> dict[str, Any]:
        return {"inputs_embeds": torch.randn(size, device=device, dtype=torch.bfloat16), "use_cache": False}

    seconds = {"text": forward_seconds(config.get_text_config(), LlamaModel, device, embedded)}
    if shape.vision:
        pixels = (1, 3, shape.vision["image_size"], shape.vision["image_size"])

        def seen() -> dict[str, Any]:
            return {"pixel_values": torch.randn(pixels, device=device, dtype=torch.bfloat16)}

        seconds["patch"] = forward_seconds(config.vision_config, CLIPVisionModel, device, seen)
    return seconds


def arithmetic_floor(shape: Shape, merged: dict[str, Any], device: str) -> dict[str, float]:
    """Seconds of the forwards and of the curvatures, which are counted by the cheaper of the two forms.

    Primal, for N tokens and c columns: N c² for the triangle of the Gram matrix, 2/3 c³ for the factor and its inverse,
    twice the time of the factor. Dual: N² c for the triangle, N³/3 for the factor, N² c for solving with it.
    """
    rates, forwards = Rates(device), measure_forwards(shape, device)
    floor = {"forward": 0.0, "gram": 0.0, "factorisation": 0.0}
    parameters = {"text": 0, "patch": 0, "image": 0}
    for name, value in disk_shapes(shape).items():
        kind = "patch" if "vision_tower" in name else "image" if "projector" in name else "text"
        if len(value) == 2 and not any(word in name for word in ("embed", "lm_head")):
            parameters[kind] += math.prod(value)
    flops = 0.0
    for name in shape.samples:
        tokens = count_tokens(shape, merged, name)
        flops += sum(2 * parameters[kind] * count for kind, count in tokens.items())
        floor["forward"] += forwards["text"] * tokens["text"] / shape.tokens
        floor["forward"] += forwards.get("patch", 0.0) * merged["images"][name]
        floor["forward"] += 2 * parameters["image"] * tokens["image"] / rates.product(half=True)
        for read in linear_inputs(shape):
            n, c = tokens[read.kind], read.columns
            gram, factor = n * c**2 / rates.gram(c), 2 * rates.factor_seconds(c)
            if n < c:
                dual = rates.factor_seconds(n) + n**2 * c / rates.product(half=False)
                gram, factor = min((gram, factor), (n**2 * c / rates.gram(n), dual), key=sum)
            floor["gram"] += read.count * gram
            floor["factorisation"] += read.count * factor
    largest = max(read.columns for read in linear_inputs(shape))
    return floor | {
        "arithmetic": sum(floor.values()),
        "forward, counted": flops / rates.product(half=True),
        "forward flops": flops,
        "product flops a second, bfloat16": rates.product(half=True),
        "product flops a second, float32": rates.product(half=False),
        "gram columns": largest,
        "gram flops a second": rates.gram(largest),
        "factor flops a second": largest**3 / 3 / rates.factor_seconds(largest),
    }


def read_seconds(files: list[Path], threads: int) -> float:
    """Every byte of the files once, by ``pread``."""

    def read(path: Path, start: int, stop: int) -> None:
        buffer = bytearray(CHUNK)
        with path.open("rb", buffering=0) as file:
            for offset in range(start, stop, CHUNK):
                os.preadv(file.fileno(), [buffer], offset)

    piece = 16 * CHUNK
    pieces = [(path, start) for path in files for start in range(0, path.stat().st_size, piece)]
    began = time.monotonic()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda item: read(item[0], item[1], min(item[1] + piece, item[0].stat().st_size)), pieces))
    return time.monotonic() - began


def write_rate(folder: Path, size: int) -> float:
    """Bytes a second of writing a new file, fsync included."""
    path, buffer = folder / "written", os.urandom(CHUNK)
    try:
        began = time.monotonic()
        with path.open("wb", buffering=0) as file:
            for offset in range(0, size, CHUNK):
                file.write(buffer[: min(CHUNK, size - offset)])
            os.fsync(file.fileno())
        return size / (time.monotonic() - began)
    finally:
        path.unlink(missing_ok=True)


def disk_floor(folder: Path) -> dict[str, float | None]:
    """Seconds of reading OLD and NEW and of writing OUT.

    Inputs in the page cache are no work of the disk, so there the larger of the two streams counts; otherwise their
    sum, for all three lie on one disk.
    """
    files, written = weights(folder), sum(path.stat().st_size for path in weights(folder, ("new",)))
    read_seconds(files, 4)
    reading = min(read_seconds(files, threads) for threads in (1, 4))
    os.sync()
    writing = written / write_rate(folder, min(WRITTEN, written))
    cached = drop_from_cache(files)
    reading_cold = read_seconds(files, 4)
    return {
        "bytes read": sum(path.stat().st_size for path in files),
        "bytes written": written,
        "reading": reading,
        "reading, cold": reading_cold,
        "writing": writing,
        "disk": max(reading, writing),
        "disk, cold": reading_cold + writing,
        "cached share after dropping": cached,
    }
