"""Reading a ``.py`` config by walking its syntax tree: nothing in the file is executed.

Statements: assignment, ``del``, ``if``, ``for``, ``assert``, ``pass``, and imports of the modules in
``allowed.MODULES``. Expressions: literals, names, operators, comparisons, subscripts, conditionals,
f-strings, comprehensions, and calls of what ``allowed`` lists. Anything else is an ``UntrustedCodeError``.
Work is bounded by a ``Budget``.
"""

from __future__ import annotations
import __future__

import ast
from collections.abc import Callable
from types import ModuleType
from typing import Any

from .allowed import MODULES
from .budget import MAX_DEPTH, VIEWS
from .config_dict import SCALARS
from .expressions import SYNTAX_NAMES, Expressions
from .operations import DATA_TYPES, Lazy, describe

__all__ = ["Evaluator", "is_dropped"]


class Evaluator(Expressions):
    """Evaluates one file, statement by statement."""

    def run(self, tree: ast.Module) -> dict[str, Any]:
        """Evaluate all statements and return the variables.

        Raises:
            UntrustedCodeError: Something that is not allowed without running the file, or too much work.
            ConfigError: An operation that fails, as it would in Python.
            SyntaxError: What Python's compiler, not its parser, would refuse.
        """
        try:
            self._block(tree.body, in_loop=False)
            self.check_is_data()
        except RecursionError as error:
            raise self._refusal(None, "nesting this deep") from error
        return self.scope.variables

    # Statements

    def _block(self, body: list[ast.stmt], in_loop: bool) -> str | None:
        """Run statements; ``'break'`` or ``'continue'`` if one of them says so."""
        for statement in body:
            self._spend(statement)
            handler = _STATEMENTS.get(type(statement))
            if handler is None:
                raise self._refusal(statement, SYNTAX_NAMES.get(type(statement), type(statement).__name__))
            signal = handler(self, statement, in_loop)
            if signal is not None:
                return signal
        return None

    def _expression_statement(self, node: ast.Expr, in_loop: bool) -> None:
        self._expr(node.value, self.scope)

    def _assign_statement(self, node: ast.Assign, in_loop: bool) -> None:
        value = self._expr(node.value, self.scope)
        for target in node.targets:
            self._assign(target, value, self.scope)

    def _annotated_assignment(self, node: ast.AnnAssign, in_loop: bool) -> None:
        # The annotation itself has no meaning in a config and is not looked at.
        if node.value is not None:
            self._assign(node.target, self._expr(node.value, self.scope), self.scope)

    def _augmented_assignment(self, node: ast.AugAssign, in_loop: bool) -> None:
        target, op = node.target, type(node.op)
        if isinstance(target, ast.Name):
            old = self._name(target, self.scope)
            value = self._expr(node.value, self.scope)
            self.scope.variables[target.id] = self._try(node, self.ops.in_place, op, old, value)
        elif isinstance(target, ast.Subscript):
            container = self._expr(target.value, self.scope)
            index = self._expr(target.slice, self.scope)
            old = self._try(target, self.ops.get_item, container, index)
            value = self._expr(node.value, self.scope)
            value = self._try(node, self.ops.in_place, op, old, value)
            self._try(target, self.ops.set_item, container, index, value)
        else:
            raise self._refusal(node, "setting an attribute")

    def _delete_statement(self, node: ast.Delete, in_loop: bool) -> None:
        for target in node.targets:
            self._delete(target)

    def _delete(self, target: ast.expr) -> None:
        if isinstance(target, ast.Name):
            if target.id not in self.scope.variables:
                raise self._failure(target, f"name {target.id!r} is not defined")
            del self.scope.variables[target.id]
        elif isinstance(target, ast.Subscript):
            container = self._expr(target.value, self.scope)
            index = self._expr(target.slice, self.scope)
            self._try(target, self.ops.delete_item, container, index)
        elif isinstance(target, (ast.Tuple, ast.List)):
            for element in target.elts:
                self._delete(element)
        else:
            raise self._refusal(target, "deleting an attribute")

    def _if_statement(self, node: ast.If, in_loop: bool) -> str | None:
        return self._block(node.body if self._expr(node.test, self.scope) else node.orelse, in_loop)

    def _for_statement(self, node: ast.For, in_loop: bool) -> str | None:
        values = self._iterate(node.iter, self._expr(node.iter, self.scope))
        for value in values:
            self._assign(node.target, value, self.scope)
            if self._block(node.body, in_loop=True) == "break":
                return None
        return self._block(node.orelse, in_loop)

    def _break_statement(self, node: ast.Break, in_loop: bool) -> str:
        if not in_loop:
            raise self._syntax_error(node, "'break' outside loop")
        return "break"

    def _continue_statement(self, node: ast.Continue, in_loop: bool) -> str:
        if not in_loop:
            raise self._syntax_error(node, "'continue' not properly in loop")
        return "continue"

    def _pass_statement(self, node: ast.Pass, in_loop: bool) -> None:
        pass

    def _assert_statement(self, node: ast.Assert, in_loop: bool) -> None:
        if not self._expr(node.test, self.scope):
            message = (
                self._expr(node.msg, self.scope) if node.msg is not None else "the assertion does not hold"
            )
            raise self._failure(node, self.ops.to_text(message))

    def _import_statement(self, node: ast.Import, in_loop: bool) -> None:
        for alias in node.names:
            module = self._module(node, alias.name)
            if alias.asname is None:
                name = alias.name.partition(".")[0]
                module = MODULES[name]
            self.scope.variables[alias.asname or name] = module

    def _import_from_statement(self, node: ast.ImportFrom, in_loop: bool) -> None:
        if node.module == "__future__":
            return
        if node.level or node.module is None:
            raise self._refusal(node, "a relative import")
        module = self._module(node, node.module)
        for alias in node.names:
            if alias.name == "*":
                raise self._refusal(node, "a star import")
            self.scope.variables[alias.asname or alias.name] = self._member(node, module, alias.name)

    def _module(self, node: ast.AST, name: str) -> ModuleType:
        if name not in MODULES:
            raise self._refusal(node, f"importing {name!r}")
        return MODULES[name]

    # The result

    def check_is_data(self) -> None:
        """The variables must be plain data of bounded size, shared parts counted wherever they occur."""
        for name, value in self.scope.variables.items():
            if type(value) not in SCALARS and not is_dropped(name, value):
                self._check_value(name, value, 0)

    def _check_value(self, name: object, value: Any, depth: int) -> None:
        kind = type(value)
        if kind not in DATA_TYPES:
            place = f" under the key {name!r}" if depth else f" as the value of {name!r}"
            hint = "; make it a list()" if kind is Lazy or kind in VIEWS else ""
            raise self._failure(None, f"a config holds plain data, got {describe(value)}{place}{hint}")
        if kind not in _CONTAINERS:
            return
        self.budget.left -= 1 + len(value)
        if self.budget.left < 0 or depth > MAX_DEPTH:
            reason = f"nested more than {MAX_DEPTH} deep" if depth > MAX_DEPTH else "too large"
            raise self._refusal(None, f"the value of {name!r}, which is {reason},")
        if kind is dict:
            for key, item in value.items():
                if type(key) not in SCALARS:
                    self._check_value(name, key, depth + 1)
                if type(item) not in SCALARS:
                    self._check_value(key, item, depth + 1)
        else:
            for item in value:
                if type(item) not in SCALARS:
                    self._check_value(name, item, depth + 1)


def is_dropped(name: object, value: Any) -> bool:
    """Whether a variable of a ``.py`` config is no key: dunder names, imports, functions and classes."""
    return (
        (isinstance(name, str) and name.startswith("__"))
        or isinstance(value, (ModuleType, type(__future__.annotations)))
        or (callable(value) and (isinstance(value, type) or hasattr(value, "__qualname__")))
    )


_CONTAINERS = frozenset({dict, list, tuple, set, frozenset})
_STATEMENTS: dict[type, Callable[..., str | None]] = {
    ast.Expr: Evaluator._expression_statement,
    ast.Assign: Evaluator._assign_statement,
    ast.AnnAssign: Evaluator._annotated_assignment,
    ast.AugAssign: Evaluator._augmented_assignment,
    ast.Delete: Evaluator._delete_statement,
    ast.If: Evaluator._if_statement,
    ast.For: Evaluator._for_statement,
    ast.Break: Evaluator._break_statement,
    ast.Continue: Evaluator._continue_statement,
    ast.Pass: Evaluator._pass_statement,
    ast.Assert: Evaluator._assert_statement,
    ast.Import: Evaluator._import_statement,
    ast.ImportFrom: Evaluator._import_from_statement,
}
