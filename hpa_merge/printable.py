"""Text for a terminal: what it would obey, or could not show, becomes an escape."""

__all__ = ["printable"]


def printable(text: str) -> str:
    r"""The text with control characters, direction marks and broken bytes as escapes, such as ``\x1b``."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
