"""Numbers as people read them."""

from collections.abc import Mapping

from hpa_merge.report.records import CalibrationRecord, DriftRecord

__all__ = ["bytes_text", "counted", "from_first_text", "listed", "number", "percent", "seconds_text", "set_text"]


def bytes_text(count: float) -> str:
    """``1.5 GB``: decimal units, as disks and checkpoints are sold."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"


def counted(count: int, thing: str) -> str:
    """``1 tensor``, ``2 tensors``."""
    return f"{count} {thing}{'s'[: count != 1]}"


def from_first_text(drift: DriftRecord | None) -> str:
    """How far a round's OUT lies from the first model: ``4.21 %``, or ``≤ 4.21 %``; empty where nothing is known."""
    if drift is None:
        return ""
    if drift.from_first is not None:
        return f"{100 * drift.from_first:.2f} %"
    return "" if drift.from_first_at_most is None else f"≤ {100 * drift.from_first_at_most:.2f} %"


def listed(counts: Mapping[str, int]) -> str:
    """``2 routers, 1 norm``; ``nothing`` where there is nothing."""
    return ", ".join(f"{count} {kind}" for kind, count in counts.items() if count) or "nothing"


def number(value: float, digits: int = 3) -> str:
    """A number of so many digits, with a true minus."""
    return f"{value:.{digits}g}".replace("-", "−")


def percent(share: float) -> str:
    """A share between 0 and 1 in percent: one decimal under 10, none above."""
    return f"{100 * share:.{1 if round(100 * share, 1) < 10 else 0}f} %"


def set_text(record: CalibrationRecord) -> str:
    """``8 of 40 samples, 272 tokens, 16 turns, 8 images, 2 truncated``: of a set what there is of each."""
    drawn = record.available is not None and record.available > record.samples
    parts = [f"{record.samples} of {counted(record.available or 0, 'sample')}" if drawn else ""]
    parts += [counted(record.samples, "sample") * (not drawn), counted(record.tokens, "token")]
    for thing, name in {"turn": "turn", "image": "image", "video": "video", "frame": "frame", "audio": "sound"}.items():
        if count := getattr(record, f"{thing}s"):
            parts.append(counted(count, name))
    parts += [f"{seconds_text(record.seconds)} of sound"] if record.seconds else []
    if record.turns and record.answers is not None and record.answers < record.samples:
        parts.append(f"{record.answers} with an answer")
    if record.truncated:
        parts.append(f"{record.truncated} truncated")
    parts += [f"{count} dropped ({why})" for why, count in record.dropped.items()]
    return ", ".join(filter(None, parts))


def seconds_text(seconds: float) -> str:
    """``3.1 s``, ``4 min 10 s``, ``2 h 5 min``."""
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes_left = divmod(minutes, 60)
    return f"{hours} h {minutes_left} min" if hours else f"{minutes} min {rest} s"
