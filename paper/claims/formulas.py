"""The grammar of the register's measures: arithmetic, comprehensions, and a vocabulary of names.

A formula is held against it before anything is computed, so that a slip is one line and the
register can name nothing but its terms.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

from logit_distributions.errors import ReproError, brief

GRAMMAR = (
    ast.Expression, ast.Constant, ast.Name, ast.Load, ast.Store, ast.Tuple, ast.List,
    ast.UnaryOp, ast.USub, ast.BinOp, ast.Add, ast.Sub, ast.Mult, ast.Div,
    ast.Compare, ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.Eq, ast.NotEq,
    ast.Call, ast.keyword, ast.JoinedStr, ast.FormattedValue,
    ast.GeneratorExp, ast.ListComp, ast.comprehension, ast.Lambda, ast.arguments, ast.arg,
)  # fmt: skip
"""No attributes, no subscripts, no statements."""


def value(formula: str, vocabulary: Mapping[str, Any]) -> Any:
    """Return what a formula comes to.

    Parameters
    ----------
    formula : str
        An expression of Python, of `GRAMMAR` only.
    vocabulary : mapping
        What each name stands for.

    Raises
    ------
    ReproError
        If the formula is none, names something else, or fails otherwise than by such an error.
    """
    try:
        tree = ast.parse(formula, mode="eval")
        check(tree, vocabulary)
        names = {"__builtins__": {}, **vocabulary}
        return eval(compile(tree, "<measure>", "eval"), names)
    except ReproError:
        raise
    except Exception as error:
        raise ReproError(f"measure {formula!r}: {type(error).__name__}: {brief(error)}") from error


def check(tree: ast.AST, vocabulary: Mapping[str, Any]) -> None:
    """Refuse what is not of `GRAMMAR`, and names of nothing.

    Raises
    ------
    ValueError
        Naming the first such part.
    """
    nodes = list(ast.walk(tree))
    bound = {
        node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }
    bound |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    for node in nodes:
        if not isinstance(node, GRAMMAR):
            raise ValueError(
                f"{ast.unparse(node)!r} is no part of a measure; expected arithmetic, calls of "
                "terms, and comprehensions"
            )
        if isinstance(node, ast.Name) and node.id not in bound | vocabulary.keys():
            raise ValueError(f"unknown name {node.id!r}; expected one of {', '.join(vocabulary)}")
