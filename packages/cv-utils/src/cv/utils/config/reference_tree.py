"""Putting the values of ``{{ fileDirname }}`` and ``{{_base_.a.b}}`` into the syntax tree of a config."""

from __future__ import annotations

import ast

from .references import References

__all__ = ["REFERENCE_FUNCTION", "fill_tree"]

REFERENCE_FUNCTION = "__cv_reference__"


def fill_tree(tree: ast.Module, references: References) -> ast.Module:
    """Replace the tokens: variables by constants, the base's values by calls of ``REFERENCE_FUNCTION``.

    The function gets the path into the base and the line.
    """
    filled: ast.Module = ast.fix_missing_locations(_TreeFiller(references).visit(tree))
    return filled


class _TreeFiller(ast.NodeTransformer):
    def __init__(self, references: References) -> None:
        self.references = references

    def visit_Name(self, node: ast.Name) -> ast.expr:
        known = node.id in self.references.variables or node.id in self.references.bases
        return ast.copy_location(self.parts(node.id, node.lineno)[0], node) if known else node

    def visit_Constant(self, node: ast.Constant) -> ast.expr:
        if not isinstance(node.value, str):
            return node
        parts = self.parts(node.value, node.lineno)
        if not parts:
            return node
        if len(parts) == 1:
            return ast.copy_location(parts[0], node)
        if all(isinstance(part, ast.Constant) for part in parts):
            return ast.copy_location(ast.Constant("".join(part.value for part in parts)), node)  # type: ignore[attr-defined]
        return ast.copy_location(ast.JoinedStr(_formatted(parts)), node)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.expr:
        values: list[ast.expr] = []
        for part in node.values:
            if isinstance(part, ast.Constant) and isinstance(part.value, str):
                values.extend(_formatted(self.parts(part.value, node.lineno)))
            else:
                values.append(self.visit(part))
        return ast.copy_location(ast.JoinedStr(values), node)

    def parts(self, text: str, lineno: int) -> list[ast.expr]:
        """The pieces of a string constant in that line as expressions."""
        parts: list[ast.expr] = []
        for index, part in enumerate(self.references.token.split(text)):
            if index % 2 and part in self.references.bases:
                args: list[ast.expr] = [ast.Constant(self.references.bases[part]), ast.Constant(lineno)]
                parts.append(ast.Call(ast.Name(REFERENCE_FUNCTION, ast.Load()), args, []))
            elif part:
                parts.append(ast.Constant(self.references.variables[part] if index % 2 else part))
        return parts


def _formatted(parts: list[ast.expr]) -> list[ast.expr]:
    return [
        part if isinstance(part, ast.Constant) else ast.FormattedValue(part, conversion=-1, format_spec=None)
        for part in parts
    ]
