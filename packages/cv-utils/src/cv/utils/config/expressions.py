"""The expressions of a config that is not executed, and the targets they are assigned to.

Whatever an expression gives is a value of one of the plain types in ``operations.DATA_TYPES``, a view of a
dict, an iterator made here, or a function, class or module of the allow-list. Calls, methods and attributes
are looked up by that value. So nothing else can ever be reached.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

from .allowed import BUILTINS, CLASS_METHODS, FUNCTIONS, METHODS, MODULE_MEMBERS
from .budget import MAX_INT_BITS, Budget, LimitError
from .config_dict import near_matches
from .errors import TRUST_HINT, ConfigError, UntrustedCodeError
from .operations import DATA_TYPES, Lazy, Operations, UnsafeOperationError, describe, raw_iterator

__all__ = ["SYNTAX_NAMES", "Expressions", "Scope"]


class Scope:
    """Variables of the file, or of one comprehension inside it."""

    __slots__ = ("outer", "variables")

    def __init__(self, variables: dict[str, Any], outer: Scope | None = None) -> None:
        self.variables = variables
        self.outer = outer


class Expressions:
    """Evaluates expressions of one file; ``evaluator.Evaluator`` adds the statements.

    Args:
        filename: For messages.
        source: The text of the file, for messages.
        budget: What may be spent.
        variables: The variables of the file, at the start.
        reference: The function that looks up ``{{_base_.…}}``, which may be called too.
    """

    def __init__(
        self,
        filename: str,
        source: str,
        budget: Budget,
        variables: dict[str, Any],
        reference: Callable[[str, int], Any] | None = None,
    ) -> None:
        self.filename = filename
        self.source = source
        self.budget = budget
        self.ops = Operations(budget)
        self.scope = Scope(variables)
        self.reference = reference

    def call(self, function: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
        """Call a function value if it is on the allow-list."""
        handler = FUNCTIONS.get(id(function))
        if handler is None:
            if type(function) in DATA_TYPES:
                raise TypeError(f"{type(function).__name__!r} object is not callable")
            raise UnsafeOperationError(f"calling {describe(function)}")
        return handler(self, args, kwargs)

    def globals(self) -> dict[str, Any]:
        return self.scope.variables

    # Expressions

    def _expr(self, node: ast.expr, scope: Scope) -> Any:
        budget = self.budget
        budget.left -= 1
        if budget.left < 0:
            self._spend(node)
        handler = _EXPRESSIONS.get(node.__class__)
        if handler is None:
            raise self._refusal(node, SYNTAX_NAMES.get(type(node), type(node).__name__))
        return handler(self, node, scope)

    def _constant(self, node: ast.Constant, scope: Scope) -> Any:
        value = node.value
        if value.__class__ is int and value.bit_length() > MAX_INT_BITS:
            self._try(node, self.budget.check_int, value)
        return value

    def _name(self, node: ast.Name, scope: Scope) -> Any:
        name = node.id
        place: Scope | None = scope
        while place is not None:
            if name in place.variables:
                return place.variables[name]
            place = place.outer
        if name in BUILTINS:
            return BUILTINS[name]
        if hasattr(builtins, name) or name.startswith("__"):
            raise self._refusal(node, f"the name {name!r}")
        matches = near_matches(name, [*self.scope.variables, *BUILTINS])
        suggestion = f". Did you mean {' or '.join(map(repr, matches))}?" if matches else ""
        raise self._failure(node, f"name {name!r} is not defined{suggestion}")

    def _list(self, node: ast.List | ast.Tuple | ast.Set, scope: Scope) -> list[Any]:
        items: list[Any] = []
        self.budget.left -= len(node.elts)  # pays for the constants
        for element in node.elts:
            if element.__class__ is ast.Constant:
                items.append(self._constant(element, scope))
            elif element.__class__ is ast.Starred:
                items.extend(self._iterate(element.value, self._expr(element.value, scope)))
            else:
                items.append(self._expr(element, scope))
        return items

    def _tuple(self, node: ast.Tuple, scope: Scope) -> tuple[Any, ...]:
        return tuple(self._list(node, scope))

    def _set(self, node: ast.Set, scope: Scope) -> set[Any]:
        result: set[Any] = set()
        for value in self._list(node, scope):
            self._try(node, lambda value: result.add(self.ops.check_key(value, result)), value)
        return result

    def _dict(self, node: ast.Dict, scope: Scope) -> dict[Any, Any]:
        result: dict[Any, Any] = {}
        for key_node, value_node in zip(node.keys, node.values, strict=True):
            if key_node is None:
                self._merge_mapping(value_node, scope, result)
            else:
                key = self._expr(key_node, scope)
                value = self._expr(value_node, scope)
                self._try(key_node, self.ops.set_item, result, key, value)
        return result

    def _merge_mapping(self, node: ast.expr, scope: Scope, result: dict[Any, Any]) -> None:
        mapping = self._expr(node, scope)
        if type(mapping) is not dict:
            raise self._failure(node, f"{describe(mapping)} is not a mapping")
        self._try(node, self.budget.spend, 1 + 2 * len(mapping))
        result.update(mapping)

    def _unary(self, node: ast.UnaryOp, scope: Scope) -> Any:
        operand = self._expr(node.operand, scope)
        if node.op.__class__ is ast.Not:
            return not operand
        if type(operand) not in DATA_TYPES:
            raise self._refusal(node, f"an operator on {describe(operand)}")
        return self._try(node, _UNARY[type(node.op)], operand)

    def _binary(self, node: ast.BinOp, scope: Scope) -> Any:
        left = self._expr(node.left, scope)
        right = self._expr(node.right, scope)
        return self._try(node, self.ops.binary, type(node.op), left, right)

    def _bool(self, node: ast.BoolOp, scope: Scope) -> Any:
        stop_at = isinstance(node.op, ast.Or)
        value = None
        for operand in node.values:
            value = self._expr(operand, scope)
            if bool(value) is stop_at:
                break
        return value

    def _compare(self, node: ast.Compare, scope: Scope) -> Any:
        left = self._expr(node.left, scope)
        result: Any = True
        for op, right_node in zip(node.ops, node.comparators, strict=True):
            right = self._expr(right_node, scope)
            result = self._try(node, self.ops.compare, type(op), left, right)
            if not result:
                break
            left = right
        return result

    def _conditional(self, node: ast.IfExp, scope: Scope) -> Any:
        return self._expr(node.body if self._expr(node.test, scope) else node.orelse, scope)

    def _walrus(self, node: ast.NamedExpr, scope: Scope) -> Any:
        value = self._expr(node.value, scope)
        self.scope.variables[node.target.id] = value
        return value

    def _subscript(self, node: ast.Subscript, scope: Scope) -> Any:
        container = self._expr(node.value, scope)
        return self._try(node, self.ops.get_item, container, self._expr(node.slice, scope))

    def _slice(self, node: ast.Slice, scope: Scope) -> slice:
        lower, upper, step = (
            None if part is None else self._expr(part, scope) for part in (node.lower, node.upper, node.step)
        )
        return slice(lower, upper, step)

    def _attribute(self, node: ast.Attribute, scope: Scope) -> Any:
        value = self._expr(node.value, scope)
        if isinstance(value, ModuleType):
            return self._member(node, value, node.attr)
        raise self._refusal(node, f"the attribute {node.attr!r} of {describe(value)}")

    def _member(self, node: ast.AST, module: ModuleType, name: str) -> Any:
        members = MODULE_MEMBERS.get(id(module), {})
        if name not in members:
            raise self._refusal(node, f"{module.__name__}.{name}")
        return members[name]

    # f-strings

    def _f_string(self, node: ast.JoinedStr, scope: Scope) -> str:
        parts = [
            str(part.value) if isinstance(part, ast.Constant) else self._replacement(part, scope)
            for part in node.values
        ]
        self._try(node, self.budget.spend_text, sum(map(len, parts)))
        return "".join(parts)

    def _replacement(self, node: ast.expr, scope: Scope) -> str:
        if not isinstance(node, ast.FormattedValue):  # template strings and the like
            raise self._refusal(node, type(node).__name__)
        value = self._expr(node.value, scope)
        spec = self._expr(node.format_spec, scope) if node.format_spec is not None else ""
        conversion = chr(node.conversion) if node.conversion > 0 else None
        text: str = self._try(node, self.ops.format, value, spec, conversion)
        return text

    # Comprehensions

    def _list_comprehension(self, node: ast.ListComp, scope: Scope) -> list[Any]:
        return list(self._comprehend(node.elt, node.generators, scope))

    def _set_comprehension(self, node: ast.SetComp, scope: Scope) -> set[Any]:
        result: set[Any] = set()
        for value in self._comprehend(node.elt, node.generators, scope):
            self._try(node, lambda value: result.add(self.ops.check_key(value, result)), value)
        return result

    def _dict_comprehension(self, node: ast.DictComp, scope: Scope) -> dict[Any, Any]:
        result: dict[Any, Any] = {}
        pair = ast.copy_location(ast.Tuple(elts=[node.key, node.value], ctx=ast.Load()), node)
        for key, value in self._comprehend(pair, node.generators, scope):
            self._try(node, self.ops.set_item, result, key, value)
        return result

    def _generator(self, node: ast.GeneratorExp, scope: Scope) -> Lazy:
        # As in Python, the first iterable is evaluated here and the rest when elements are asked for.
        first = node.generators[0].iter
        source = self._expr(first, scope)
        self._try(first, raw_iterator, source)
        values = self._loop(node.elt, node.generators, scope, source)
        lazy: Lazy = self._try(node, Lazy, values, source)
        return lazy

    def _comprehend(
        self, element: ast.expr, generators: list[ast.comprehension], scope: Scope
    ) -> Iterator[Any]:
        return self._loop(element, generators, scope, self._expr(generators[0].iter, scope))

    def _loop(
        self, element: ast.expr, generators: list[ast.comprehension], scope: Scope, source: Any
    ) -> Iterator[Any]:
        """The values of a comprehension whose first iterable has been evaluated already."""
        return self._clause(element, generators, 0, Scope({}, scope), source)

    def _clause(
        self, element: ast.expr, clauses: list[ast.comprehension], index: int, scope: Scope, source: Any
    ) -> Iterator[Any]:
        clause = clauses[index]
        if clause.is_async:
            raise self._refusal(element, "an async comprehension")
        for value in self._iterate(clause.iter, source):
            self._assign(clause.target, value, scope)
            if not all(self._expr(condition, scope) for condition in clause.ifs):
                continue
            if index + 1 == len(clauses):
                yield self._expr(element, scope)
            else:
                inner = self._expr(clauses[index + 1].iter, scope)
                yield from self._clause(element, clauses, index + 1, scope, inner)

    # Calls

    def _call(self, node: ast.Call, scope: Scope) -> Any:
        if isinstance(node.func, ast.Attribute):
            owner = self._expr(node.func.value, scope)
            if not isinstance(owner, ModuleType):
                return self._call_method(node, owner, node.func.attr, scope)
            function = self._member(node.func, owner, node.func.attr)
        else:
            function = self._expr(node.func, scope)
        if function is dict and not node.args:  # nine of ten calls in real configs
            return self._keywords(node, scope)
        args = self._arguments(node, scope)
        if self.reference is not None and function is self.reference:
            return self.reference(*args)
        return self._try(node, self.call, function, args, self._keywords(node, scope))

    def _call_method(self, node: ast.Call, owner: Any, name: str, scope: Scope) -> Any:
        handlers = (
            CLASS_METHODS.get(id(owner), {}) if isinstance(owner, type) else METHODS.get(type(owner), {})
        )
        handler = handlers.get(name)
        if handler is None:
            raise self._refusal(node, f"the method {name!r} of {describe(owner)}")
        args = self._arguments(node, scope)
        if not isinstance(owner, type):
            args.insert(0, owner)
        return self._try(node, handler, self, args, self._keywords(node, scope))

    def _arguments(self, node: ast.Call, scope: Scope) -> list[Any]:
        args: list[Any] = []
        for argument in node.args:
            if isinstance(argument, ast.Starred):
                args.extend(self._iterate(argument, self._expr(argument.value, scope)))
            else:
                args.append(self._expr(argument, scope))
        return args

    def _keywords(self, node: ast.Call, scope: Scope) -> dict[str, Any]:
        kwargs: dict[str, Any] = {}
        self.budget.left -= len(node.keywords)  # pays for the constants
        for keyword in node.keywords:
            name = keyword.arg
            value = keyword.value
            if name is None:
                self._add_keywords(value, scope, kwargs)
            elif name in kwargs:
                if sum(other.arg == name for other in node.keywords) > 1:
                    raise self._syntax_error(value, f"keyword argument repeated: {name}")
                raise self._failure(value, f"got multiple values for keyword argument {name!r}")
            elif value.__class__ is ast.Constant:
                kwargs[name] = self._constant(value, scope)
            else:
                kwargs[name] = self._expr(value, scope)
        return kwargs

    def _add_keywords(self, node: ast.expr, scope: Scope, kwargs: dict[str, Any]) -> None:
        extra: dict[Any, Any] = {}
        self._merge_mapping(node, scope, extra)
        for name, value in extra.items():
            if not isinstance(name, str):
                raise self._failure(node, "keywords must be strings")
            if name in kwargs:
                raise self._failure(node, f"got multiple values for keyword argument {name!r}")
            kwargs[name] = value

    # Assignment targets

    def _assign(self, target: ast.expr, value: Any, scope: Scope) -> None:
        if isinstance(target, ast.Name):
            scope.variables[target.id] = value
        elif isinstance(target, (ast.Tuple, ast.List)):
            self._unpack(target, value, scope)
        elif isinstance(target, ast.Subscript):
            container = self._expr(target.value, scope)
            self._try(target, self.ops.set_item, container, self._expr(target.slice, scope), value)
        elif isinstance(target, ast.Starred):
            raise self._syntax_error(target, "starred assignment target must be in a list or tuple")
        else:
            raise self._refusal(target, "setting an attribute")

    def _unpack(self, target: ast.Tuple | ast.List, value: Any, scope: Scope) -> None:
        targets = target.elts
        starred = [index for index, element in enumerate(targets) if isinstance(element, ast.Starred)]
        if len(starred) > 1:
            raise self._syntax_error(target, "multiple starred expressions in assignment")
        values: list[Any] = []
        for item in self._iterate(target, value):
            values.append(item)
            if not starred and len(values) > len(targets):
                raise self._failure(target, f"too many values to unpack (expected {len(targets)})")
        if len(values) < len(targets) - len(starred):
            raise self._failure(
                target, f"not enough values to unpack (expected {len(targets)}, got {len(values)})"
            )
        if starred:
            start, after = starred[0], len(targets) - starred[0] - 1
            end = len(values) - after
            values[start:end] = [values[start:end]]
        for element, item in zip(targets, values, strict=True):
            self._assign(element.value if isinstance(element, ast.Starred) else element, item, scope)

    # Running operations, and their errors

    def _iterate(self, node: ast.AST, value: Any) -> Iterator[Any]:
        """Iterate; errors of the iteration itself are given the place of ``node``."""
        iterator = self.ops.iterate(value)
        while True:
            try:
                item = next(iterator)
            except StopIteration:
                return
            except _PASS_ON:
                raise
            except Exception as error:
                raise self._located(node, error) from error
            yield item

    def _try(self, node: ast.AST, operation: Callable[..., Any], *args: Any) -> Any:
        """Do an operation on values; what it raises is given the place of ``node``."""
        try:
            return operation(*args)
        except _PASS_ON:
            raise
        except Exception as error:
            raise self._located(node, error) from error

    def _located(self, node: ast.AST, error: Exception) -> ConfigError:
        if isinstance(error, (UnsafeOperationError, LimitError)):
            return self._refusal(node, str(error), limit=isinstance(error, LimitError))
        text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
        return self._failure(node, f"{type(error).__name__}: {text}")

    def _spend(self, node: ast.AST) -> None:
        self._try(node, self.budget.spend, 1)

    def _refusal(self, node: ast.AST | None, what: str, limit: bool = False) -> ConfigError:
        reason = what if limit else f"{what} is not allowed in a config that is not executed"
        return self._error(UntrustedCodeError, node, reason, TRUST_HINT)

    def _failure(self, node: ast.AST | None, reason: str) -> ConfigError:
        return self._error(ConfigError, node, reason)

    def _error(
        self, kind: type[ConfigError], node: ast.AST | None, reason: str, hint: str | None = None
    ) -> ConfigError:
        lineno = getattr(node, "lineno", None)
        lines = self.source.split("\n")
        line = lines[lineno - 1] if lineno is not None and lineno <= len(lines) else None
        return kind(reason, filename=self.filename, lineno=lineno, line=line, hint=hint)

    def _syntax_error(self, node: ast.expr | ast.stmt, reason: str) -> SyntaxError:
        line = self.source.split("\n")[node.lineno - 1]
        return SyntaxError(
            f"There are syntax errors in config file {self.filename}: {reason}",
            (self.filename, node.lineno, node.col_offset + 1, line),
        )


_PASS_ON = (ConfigError, SyntaxError, RecursionError, MemoryError)
_UNARY: dict[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.USub: lambda value: -value,
    ast.UAdd: lambda value: +value,
    ast.Invert: lambda value: ~int(value) if type(value) is bool else ~value,
}

_EXPRESSIONS: dict[type, Callable[..., Any]] = {
    ast.Constant: Expressions._constant,
    ast.Name: Expressions._name,
    ast.Call: Expressions._call,
    ast.List: Expressions._list,
    ast.Tuple: Expressions._tuple,
    ast.Set: Expressions._set,
    ast.Dict: Expressions._dict,
    ast.UnaryOp: Expressions._unary,
    ast.BinOp: Expressions._binary,
    ast.BoolOp: Expressions._bool,
    ast.Compare: Expressions._compare,
    ast.IfExp: Expressions._conditional,
    ast.NamedExpr: Expressions._walrus,
    ast.Subscript: Expressions._subscript,
    ast.Slice: Expressions._slice,
    ast.Attribute: Expressions._attribute,
    ast.JoinedStr: Expressions._f_string,
    ast.ListComp: Expressions._list_comprehension,
    ast.SetComp: Expressions._set_comprehension,
    ast.DictComp: Expressions._dict_comprehension,
    ast.GeneratorExp: Expressions._generator,
}

#: What to call the syntax that configs most often use and may not.
SYNTAX_NAMES: dict[type, str] = {
    ast.FunctionDef: "a function definition",
    ast.AsyncFunctionDef: "a function definition",
    ast.ClassDef: "a class definition",
    ast.Lambda: "a lambda",
    ast.While: "a while loop",
    ast.With: "a with statement",
    ast.Try: "a try statement",
    ast.Raise: "a raise statement",
    ast.Return: "a return statement",
    ast.Global: "a global statement",
    ast.Yield: "yield",
    ast.Await: "await",
}
