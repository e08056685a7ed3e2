"""Whether two checkpoints bring the same code."""

import ast
import warnings

from hpa_merge.custom_code.finding import Code

__all__ = ["differing"]


def differing(old: Code | None, new: Code | None, *, of_the_model: bool) -> list[str]:
    """The files of code that differ by more than comments, docstrings and layout, or that only one of the two has.

    Args:
        of_the_model: compare the files that the model is built with; otherwise all others.
    """
    both = [{} if code is None else code.contents(of_the_model=of_the_model) for code in (old, new)]
    names = sorted(both[0].keys() | both[1].keys())
    return [name for name in names if _meaning(both[0].get(name)) != _meaning(both[1].get(name))]


def _meaning(content: bytes | None) -> str | bytes | None:
    """The code without comments, docstrings and layout; as it is where Python cannot parse it."""
    if content is None:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of strings with a stray backslash
            tree = ast.parse(content)
        for node in ast.walk(tree):
            body = getattr(node, "body", None)
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and body:
                first = body[0]
                if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                    node.body = body[1:]
        return ast.dump(tree)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return content
