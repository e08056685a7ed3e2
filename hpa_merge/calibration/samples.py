"""A calibration file becomes the samples that a run uses: read all, refuse what is malformed, draw a few."""

import json
import random
from collections.abc import Iterator
from pathlib import Path

from hpa_merge.calibration.formats import Sample, parse_record
from hpa_merge.errors import CalibrationError

__all__ = ["Sample", "read_samples"]


def read_samples(path: Path, limit: int, seed: int) -> list[Sample]:
    """At most ``limit`` samples of ``path``, in the order of the file.

    Every line is parsed and checked, drawn or not, so that a file's faults do not depend on the seed. Where the file
    holds more than ``limit`` samples, ``limit`` of them are drawn without replacement by ``random.Random(seed)``.

    Args:
        path: JSON Lines, or one JSON array; UTF-8. Blank lines are skipped.

    Raises:
        CalibrationError: the file cannot be read or holds nothing, or a line (named ``file:line``, the items of an
            array ``file:item``) is malformed.
    """
    samples = [
        sample for source, record in _records(path) for sample in parse_record(record, source, folder=path.parent)
    ]
    if not samples:
        raise CalibrationError(f"{path} holds no sample: write one JSON object a line.")
    if len(samples) <= limit:
        return samples
    drawn = random.Random(seed).sample(range(len(samples)), limit)
    return [samples[index] for index in sorted(drawn)]


def _records(path: Path) -> Iterator[tuple[str, object]]:
    """Every JSON value of the file, with its ``file:line``, or ``file:item`` where the file is one array."""
    try:
        content = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    except FileNotFoundError:
        raise CalibrationError(f"the calibration file {path} does not exist: check the path.") from None
    except OSError as error:
        raise CalibrationError(
            f"the calibration file {path} cannot be read ({error.strerror}): check the path."
        ) from None

    if content.lstrip().startswith(b"["):
        array = _parse(content, str(path))
        if not isinstance(array, list):
            raise CalibrationError(f"{path} is neither JSON Lines nor a JSON array: write one JSON object a line.")
        for number, record in enumerate(array, start=1):
            yield f"{path}:{number}", record
        return
    for number, line in enumerate(content.split(b"\n"), start=1):  # not splitlines: U+2028 may stand inside a string
        if line.strip():
            yield f"{path}:{number}", _parse(line, f"{path}:{number}")


def _parse(content: bytes, source: str) -> object:
    try:
        return json.loads(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise CalibrationError(f"{source}: byte {error.start + 1} is not UTF-8: save the file as UTF-8.") from None
    except json.JSONDecodeError as error:
        place = f"column {error.colno}" if error.lineno == 1 else f"line {error.lineno} column {error.colno}"
        raise CalibrationError(
            f"{source}: not valid JSON at {place} ({error.msg}): write one JSON object a line, or one array."
        ) from None
    except (ValueError, RecursionError):  # a number of thousands of digits, an array thousands deep
        raise CalibrationError(
            f"{source}: this JSON is too large to be read: write shorter numbers and nest less deeply."
        ) from None
