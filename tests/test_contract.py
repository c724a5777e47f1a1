"""Every documented name exists, from its documented path, with its documented parameters.

``contracts/api.json`` is the documented API.
"""

import ast
import importlib
import inspect
import json
from pathlib import Path
from typing import Any

import pytest

CONTRACTS = Path(__file__).parents[1] / "contracts"
ENTRIES: list[dict[str, Any]] = json.loads((CONTRACTS / "api.json").read_text(encoding="utf-8"))
# Subclasses or aliases of torch's own classes: their parameters follow torch.
FOLLOWS_TORCH = frozenset((CONTRACTS / "follows_torch.txt").read_text(encoding="utf-8").split())
VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


@pytest.mark.parametrize("entry", ENTRIES, ids=[entry["path"] for entry in ENTRIES])
def test_documented_name(entry: dict[str, Any]) -> None:
    module, _, name = entry["path"].rpartition(".")
    found = getattr(importlib.import_module(module), name)
    assert inspect.isclass(found) or entry["kind"] not in ("class", "exception")
    assert callable(found)
    assert (inspect.getdoc(found) or "").strip(), "no docstring"
    if entry["path"] in FOLLOWS_TORCH:
        return
    if entry["params"] is not None:
        compare(entry["params"], found)
    for member, documented in entry["members"].items():
        if documented["kind"] == "property" and not hasattr(found, member):
            continue  # set in __init__
        assert hasattr(found, member), f"{entry['path']}.{member} is missing"
        kind = {"static": staticmethod, "classmethod": classmethod}.get(documented["kind"])
        assert kind is None or isinstance(inspect.getattr_static(found, member), kind)
        if documented["params"] is not None:
            compare([p for p in documented["params"] if p[0] not in ("self", "cls")], getattr(found, member))


def compare(documented: list[list[Any]], function: Any) -> None:
    """Names, order and defaults of the documented parameters; ours may follow, all of them optional."""
    actual = {name: p for name, p in inspect.signature(function).parameters.items() if name != "self"}
    swallows = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in actual.values())
    order = []
    for name, kind, default in documented:
        if kind in ("var_positional", "var_keyword"):
            continue
        if name not in actual:
            assert swallows, f"parameter {name!r} is missing"
            continue
        if kind == "normal":
            assert actual[name].kind is not inspect.Parameter.KEYWORD_ONLY, (
                f"{name!r} must be usable by position"
            )
            order.append(name)
        if default is not None:
            assert actual[name].default is not inspect.Parameter.empty, f"{name!r} has no default"
            assert same_default(default, actual[name].default), (
                f"{name!r}: {actual[name].default!r} != {default}"
            )
    positional = [n for n, p in actual.items() if p.kind is not p.KEYWORD_ONLY and p.kind not in VARIADIC]
    assert positional[: len(order)] == order, f"order is {positional}, documented is {order}"
    if not any(kind.startswith("var") for _, kind, _ in documented):
        names = {name for name, _, _ in documented}
        extra = [
            n for n, p in actual.items() if n not in names and p.kind not in VARIADIC and p.default is p.empty
        ]
        assert not extra, f"undocumented parameters are required: {extra}"


def same_default(documented: str, actual: Any) -> bool:
    """Whether a default written in the reference is the one in the code, as far as it is a literal."""
    try:
        wanted = ast.literal_eval(documented)
    except (ValueError, SyntaxError):
        return True
    if isinstance(wanted, (tuple, list)) and isinstance(actual, (tuple, list)):
        return list(wanted) == list(actual)
    return bool(wanted == actual)
