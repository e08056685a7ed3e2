"""Parse YAML that somebody else wrote, like :mod:`parsing`, after bounding its size with all aliases expanded."""

from typing import Any

import yaml

from hpa_merge.files.parsing import SurrogateError

__all__ = ["YAML_BYTES", "parse_yaml"]

YAML_BYTES = 2**20
"""The longest YAML that is read by default; PyYAML reads half a megabyte a second."""

YAML_EXPANDED = 2**24
"""The most characters and values of YAML with every alias expanded."""

DIGITS = 100
"""The most digits of a whole number in YAML: Python limits decimal numbers, but not hexadecimal ones."""


def parse_yaml(content: bytes | str, loader: type[Any] = yaml.SafeLoader, size: int = YAML_BYTES) -> Any:
    """The value of a YAML document.

    Args:
        loader: a kind of ``yaml.SafeLoader``.
        size: its longest, in bytes or characters.

    Raises:
        yaml.YAMLError: it is not YAML.
        ValueError: it is not UTF-8, too long, nested too deeply, too large with its aliases expanded, contains itself,
            or has a value that does not fit its tag.
    """
    if len(content) > size:
        raise ValueError(f"it is longer than {size} bytes")
    made = loader(content if isinstance(content, str) else content.decode("utf-8"))
    try:
        node = made.get_single_node()
        if node is None:
            return None
        _expanded(node, {})
        return made.construct_document(node)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except (AttributeError, IndexError, KeyError, OverflowError, TypeError) as error:  # "!!int x", "!!timestamp x"
        raise ValueError("a value does not fit its tag") from error
    finally:
        made.dispose()


def _expanded(node: Any, known: dict[int, int | None]) -> int:
    """How many values and characters a node has with every alias expanded.

    Args:
        known: the results for nodes that were counted, by ``id()``; None while a node is being counted.

    Raises:
        ValueError: there are too many, or the node contains itself, or holds half a pair of surrogates.
    """
    if id(node) in known:
        if (before := known[id(node)]) is None:
            raise ValueError("a value contains itself")
        return before
    known[id(node)] = None
    if isinstance(node, yaml.ScalarNode):
        if any("\ud800" <= sign <= "\udfff" for sign in node.value):
            raise SurrogateError("it has half a pair of surrogates")
        if node.tag == "tag:yaml.org,2002:int" and len(node.value) > DIGITS:
            raise ValueError(f"it has a number of more than {DIGITS} digits")
        total = 1 + len(node.value)
    else:
        pairs = isinstance(node, yaml.MappingNode)
        total = 1
        for item in node.value:
            total += sum(_expanded(each, known) for each in (item if pairs else [item]))
            if total > YAML_EXPANDED:
                raise ValueError(f"its aliases stand for more than {YAML_EXPANDED} characters")
    known[id(node)] = total
    return total
