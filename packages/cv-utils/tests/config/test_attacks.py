"""Hostile configs: nothing runs, time and memory stay small, and the error says what and where."""

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from cv.utils.config import Config, ConfigError, UntrustedCodeError
from cv.utils.config.budget import Budget

Write = Callable[[str, str], Path]

REFUSED = {
    # Reaching into the interpreter
    "attribute chain": ("x = ().__class__.__bases__[0].__subclasses__()", 1, "'__class__'"),
    "attribute of a number": ("x = (1).real", 1, "'real'"),
    "attribute in an f-string": ("x = f'{().__class__}'", 1, "'__class__'"),
    "attribute in a format spec": ("x = f'{1:{().__class__}}'", 1, "'__class__'"),
    "str.format attribute": ("x = '{0.__class__}'.format(1)", 1, "{0.__class__}"),
    "str.format item": ("x = '{a[b]}'.format(a={})", 1, "{a[b]}"),
    "str.format nested": ("x = '{:{}}'.format(1, 2)", 1, "{:{}}"),
    "str.format by map": ("x = list(map('{0.__class__}'.format, [1]))", 1, "'format'"),
    "format_map": ("x = '{a.__class__}'.format_map(dict(a=1))", 1, "'format_map'"),
    "unbound method": ("x = str.format('{0.__class__}', 1)", 1, "'format'"),
    "mro": ("x = dict.mro()", 1, "'mro'"),
    "generator frame": ("x = (i for i in [1]).gi_frame", 1, "'gi_frame'"),
    "function attribute": ("x = len.__self__", 1, "'__self__'"),
    "setting an attribute": ("x = []\nx.y = 1", 2, "setting an attribute"),
    "deleting an attribute": ("x = []\ndel x.y", 2, "deleting an attribute"),
    "loop variable attribute": ("for x.y in [1]: pass", 1, "setting an attribute"),
    # Names
    "__import__": ("x = __import__('os').system('touch owned')", 1, "'__import__'"),
    "__builtins__": ("x = __builtins__", 1, "'__builtins__'"),
    "open": ("x = open('owned', 'w')", 1, "'open'"),
    "eval": ("x = eval('1')", 1, "'eval'"),
    "exec": ("exec('import os')", 1, "'exec'"),
    "getattr": ("x = getattr((), '__class__')", 1, "'getattr'"),
    "type": ("x = type(1)", 1, "'type'"),
    "alias of eval": ("run = eval\nx = run('1')", 1, "'eval'"),
    "eval as a key function": ("x = sorted(['1'], key=eval)", 1, "'eval'"),
    "eval mapped": ("x = list(map(eval, ['1']))", 1, "'eval'"),
    "print": ("print('hello')", 1, "'print'"),
    # Modules
    "import": ("import sys", 1, "'sys'"),
    "import of a submodule": ("import os.path, subprocess", 1, "'subprocess'"),
    "from import": ("from os import system", 1, "os.system"),
    "star import": ("from os.path import *", 1, "a star import"),
    "star import of the config's folder": ("from helper import *", 1, "'helper'"),
    "relative import": ("from . import helper", 1, "a relative import"),
    "alias of an allowed module": ("import os as m\nx = m.system('touch owned')", 2, "os.system"),
    "allowed name for another module": ("import math as os\nx = os.system('id')", 2, "math.system"),
    "module behind a module": ("import os.path as p\nx = p.os.system('id')", 2, "path.os"),
    "module in a list": ("import os\nx = [os][0].popen('id')", 2, "os.popen"),
    "module by walrus": ("import os\nx = (m := os).getcwd()", 2, "os.getcwd"),
    "environment": ("import os\nx = os.environ['HOME']", 2, "os.environ"),
    "file system": ("import os\nx = os.path.exists('/etc/passwd')", 2, "path.exists"),
    "module dict": ("import math\nx = math.__dict__", 2, "math.__dict__"),
    "loader": ("import math\nx = math.__loader__.load_module('os')", 2, "math.__loader__"),
    "copy of a function": ("import copy\nx = copy.copy(len)", 2, "copy.copy"),
    # Statements
    "function": ("def f():\n    pass", 1, "a function definition"),
    "decorator": ("x = 1\n@eval\ndef f(): pass", 3, "a function definition"),
    "class decorator": ("@exec\nclass A: pass", 2, "a class definition"),
    "metaclass": ("class A(metaclass=eval): pass", 1, "a class definition"),
    "lambda": ("x = lambda: 1", 1, "a lambda"),
    "lambda as a default": ("x = dict(a=[lambda: 1])", 1, "a lambda"),
    "while": ("while True: pass", 1, "a while loop"),
    "with": ("with open('owned', 'w'): pass", 1, "a with statement"),
    "try": ("try:\n    x = 1\nexcept Exception: pass", 1, "a try statement"),
    "raise": ("raise SystemExit", 1, "a raise statement"),
    "yield": ("x = [(yield)]", 1, "yield"),
    "global": ("global x", 1, "a global statement"),
    # Codecs are modules that are imported by name
    "encode": ("x = 'a'.encode('antigravity')", 1, "'encode'"),
    "str with encoding": ("x = str(b'a', 'antigravity')", 1, "str()"),
    "type algebra": ("x = int | str", 1, "an operator on builtins.int"),
    "generic alias": ("x = list[int]", 1, "a subscript on builtins.list"),
    # Work without bound
    "giant power": ("x = 9 ** 9 ** 9", 1, "an integer has more than 4096 bits"),
    "power by a loop": ("x = 3\nfor i in range(99): x *= x", 2, "an integer has more than 4096 bits"),
    "pow()": ("x = pow(2, 10**9)", 1, "an integer has more than 4096 bits"),
    "shift": ("x = 1 << 10**9", 1, "an integer has more than 4096 bits"),
    "product": ("import math\nx = math.prod([10**100] * 10**5)", 2, "an integer has more than 4096 bits"),
    "sum": ("import math\nx = sum([10**1200] * 10**5)", 2, "an integer has more than 4096 bits"),
    "giant literal": (f"x = 0x{'f' * 5000}", 1, "an integer has more than 4096 bits"),
    "giant int()": ("x = int('9' * 10**5)", 1, "more than 1000 digits"),
    "round": ("x = round(5, -10**9)", 1, "round() to more than"),
    "repeated list": ("x = [0] * 10**10", 1, "too much time or memory"),
    "repeated list in place": ("x = [0]\nfor i in range(99): x *= 9", 2, "too much time or memory"),
    "doubled list": ("x = [0]\nfor i in range(99): x += x", 2, "too much time or memory"),
    "extended by itself": ("x = [0]\nfor i in range(99): x.extend(x)", 2, "too much time or memory"),
    "repeated string": ("x = 'a' * 10**11", 1, "too much time or memory"),
    "doubled string": ("x = 'a'\nfor i in range(99): x += x", 2, "too much time or memory"),
    "joined strings": ("x = ','.join(['a' * 10**5] * 10**5)", 1, "too much time or memory"),
    "replaced strings": ("x = ('a' * 10**5).replace('a', 'b' * 10**5)", 1, "too much time or memory"),
    "padded string": ("x = 'a'.ljust(10**11)", 1, "too much time or memory"),
    "zfill": ("x = '1'.zfill(10**11)", 1, "too much time or memory"),
    "expandtabs": ("x = '\\t'.expandtabs(10**9)", 1, "too much time or memory"),
    "wide f-string": ("x = f'{1:999999999}'", 1, "too many digits"),
    "wide computed f-string": ("x = f'{1:{10**9}}'", 1, "too many digits"),
    "precise f-string": ("x = f'{1.0:.999999999f}'", 1, "too many digits"),
    "wide format()": ("x = format(1, '999999999')", 1, "too many digits"),
    "wide str.format": ("x = '{:999999999}'.format(1)", 1, "too many digits"),
    "wide percent": ("x = '%999999999d' % 1", 1, "'%999999999d' is not allowed"),
    "starred percent": ("x = '%*d' % (10**9, 1)", 1, "'%*d' is not allowed"),
    "repeated percent": ("x = '%(a)s' * 10**5 % dict(a='b' * 10**5)", 1, "too much time or memory"),
    "sum of a range": ("x = sum(range(10**12))", 1, "too much time or memory"),
    "max of a range": ("x = max(range(10**12))", 1, "too much time or memory"),
    "list of a range": ("x = list(range(10**12))", 1, "too much time or memory"),
    "unpacked range": ("x = [*range(10**12)]", 1, "too much time or memory"),
    "starred range": ("a, *b = range(10**12)", 1, "too much time or memory"),
    "range as arguments": ("x = max(*range(10**12))", 1, "too much time or memory"),
    "search in a range": ("x = 0.5 in range(10**12)", 1, "too much time or memory"),
    "filter that finds nothing": (
        "x = any(filter(None, map(bool, [0] * 10**5 * 3)))",
        1, "too much time or memory",
    ),
    "empty loop": ("for i in range(10**12): pass", 1, "too much time or memory"),
    "nested comprehension": ("x = [0 for i in range(10**6) for j in range(10**6)]", 1, "too much"),
    "generator that never ends": ("x = any(False for i in range(10**12))", 1, "too much time or memory"),
    "nested repeats": ("a = [0] * 10\nfor i in range(20): a = [a] * 10", None, "too large"),
    "shared parts in str()": ("a = [0]\nfor i in range(50): a = [a, a]\nx = str(a)", 3, "too much"),
    "shared parts compared": (
        "a = [0]\nb = [0]\nfor i in range(50):\n    a = [a, a]\n    b = [b, b]\nx = a == b", 6, "too much",
    ),
    "shared parts hashed": ("a = ()\nfor i in range(50): a = (a, a)\nx = {a: 1}", 3, "too much"),
    "shared parts copied": (
        "import copy\na = [0]\nfor i in range(50): a = [a, a]\nx = copy.deepcopy(a)", 4, "too much",
    ),
    "shared parts formatted": ("a = [0]\nfor i in range(50): a = [a, a]\nx = f'{a}'", 3, "too much"),
    "deep nesting": ("a = []\nfor i in range(10**4): a = [a]", None, "nested more than 100 deep"),
    "deep nesting, hashed": ("a = ()\nfor i in range(10**4): a = (a,)\nx = {a}", 3, "nested more than"),
    "self reference": ("a = []\na.append(a)", None, "nested more than 100 deep"),
    "self reference by globals()": ("x = globals()", None, "nested more than 100 deep"),
    "iterators in iterators": ("x = [1]\nfor i in range(10**5): x = zip(x)", 2, "iterators are nested"),
    "generators in generators": ("x = [1]\nfor i in range(99): x = (y for y in x)", 2, "nested more than 20"),
    "keys that collide": ("x = {i * (2**61 - 1) for i in range(10**5)}", 1, "too much time or memory"),
    "keys that collide, natively": ("x = set([i * (2**61 - 1) for i in range(10**4)])", 1, "too much"),
    "deep expression": ("x = " + "not " * 900 + "1", None, "nesting this deep"),
    "long file": ("x = 1\n" * 100_000, None, "more than 500000 characters"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str, write: Write, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(
        Budget.__init__, "__defaults__", (300_000,)
    )  # to be quick; the next test has the real one
    text, line, what = REFUSED[name]
    path = write("hostile.py", text)
    write("helper.py", "open('owned', 'w')")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UntrustedCodeError) as caught:
        Config.fromfile(path)
    message = str(caught.value)
    assert what in message
    assert message.startswith(f"{path}, line {line}: " if line else f"{path}: ")
    assert line is None or text.splitlines()[line - 1].strip()[:200] in message
    assert "trust=True" in message
    assert "CV_CONFIG_TRUST=1" in message
    assert caught.value.lineno == line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["helper.py", "hostile.py"]


def test_time_and_memory_of_all_attacks(tmp_path: Path) -> None:
    """All of them, one after the other in one process, under a limit that a single success would break."""
    code = f"""
        import importlib.util, resource, sys, time
        from cv.utils.config import Config, UntrustedCodeError
        spec = importlib.util.spec_from_file_location("attacks", {__file__!r})
        attacks = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(attacks)
        resource.setrlimit(resource.RLIMIT_AS, (2**31, 2**31))
        resource.setrlimit(resource.RLIMIT_CPU, (240, 240))
        for name, (text, line, what) in attacks.REFUSED.items():
            try:
                Config.fromstring(text, "py")
            except UntrustedCodeError:
                continue
            sys.exit(name + " was not refused")
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, cwd=tmp_path
    )
    assert result.returncode == 0, result.stderr
    assert not list(tmp_path.iterdir())


SYNTAX = {
    "repeated keyword": "x = dict(a=1, a=2)",
    "break": "break",
    "continue": "if True: continue",
    "two stars": "*a, *b = [1, 2]",
    "lone star": "*a = [1]",
    "many parentheses": "x = " + "(" * 1000 + ")" * 1000,
    "many signs": "x = " + "-" * 100_000 + "1",
    "long sum": "x = 1" + " + 1" * 20_000,
    "attributes of attributes": "x = a" + ".b" * 100_000,
    "null byte": "x = '\0'",
}


@pytest.mark.parametrize("name", SYNTAX)
def test_what_does_not_compile_is_a_syntax_error(name: str, write: Write) -> None:
    path = write("a.py", SYNTAX[name])
    with pytest.raises(
        (SyntaxError, UntrustedCodeError), match=r"syntax errors in config file|nesting this deep"
    ):
        Config.fromfile(path)


HARMLESS = {
    "shadowed builtin": ("len = 5\nx = len", dict(len=5, x=5)),
    "alias of a pure function": ("size = len\nx = size([1])", dict(x=1)),
    "one times a large power": ("x = 1 ** 10**9 + 0 ** 10**9 + (-1) ** 10**9", dict(x=2)),
    "string of code": ("x = 'exec(\"import os\")'", dict(x='exec("import os")')),
    "annotation is not evaluated": ("x: open('owned', 'w') = 1", dict(x=1)),
    "dunder name": ("__builtins__ = dict(len=1)\nx = len([])", dict(x=0)),
    "huge range, lazily": ("x = range(10**12)\ny = x[5]\nz = 7 in x", dict(x=range(10**12), y=5, z=True)),
}  # fmt: skip


@pytest.mark.parametrize("name", HARMLESS)
def test_harmless(name: str, write: Write, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    text, expected = HARMLESS[name]
    monkeypatch.chdir(tmp_path)
    assert Config.fromfile(write("a.py", text))._cfg_dict == expected
    assert [path.name for path in tmp_path.iterdir()] == ["a.py"]


FAILING = {
    "not defined": ("x = 1\ny = undefined", 2, "name 'undefined' is not defined"),
    "near match": ("optimizer = 1\ny = optimiser", 2, "Did you mean 'optimizer'?"),
    "division": ("x = [\n    1,\n    2 / 0,\n]", 3, "ZeroDivisionError: division by zero"),
    "key": ("x = dict(a=1)\ny = x['b']", 2, "KeyError: b"),
    "call": ("x = 3\ny = x(1)", 2, "TypeError: 'int' object is not callable"),
    "unpack": ("a, b = 1, 2, 3", 1, "too many values to unpack (expected 2)"),
    "assert": ("assert 1 > 2, 'one is less'", 1, "one is less"),
    "unhashable": ("x = {[]: 1}", 1, "TypeError"),
    "function as a value": ("x = dict(f=len)", None, "plain data, got builtins.len under the key 'f'"),
    "iterator as a value": (
        "x = zip([1])",
        None,
        "an iterator as the value of 'x'; make it a list()",
    ),
    "view as a value": ("x = dict(a={}.keys())", None, "under the key 'a'; make it a list()"),
    "module as a value": ("import math\nx = [math]", None, "the module math"),
    "twice a keyword": ("x = dict(a=1, **dict(a=2))", 1, "multiple values for keyword argument 'a'"),
}


@pytest.mark.parametrize("name", FAILING)
def test_failing_operations_say_where(name: str, write: Write) -> None:
    text, line, what = FAILING[name]
    path = write("a.py", text)
    with pytest.raises(ConfigError) as caught:
        Config.fromfile(path)
    assert not isinstance(caught.value, UntrustedCodeError)
    assert what in str(caught.value)
    assert str(caught.value).startswith(f"{path}, line {line}: " if line else f"{path}: ")


# Files


def test_bases_outside_the_tree_are_read_as_strictly(write: Write, tmp_path: Path) -> None:
    write("outside/evil.py", "import os\nos.system('touch owned')")
    write("outside/secret.txt", "password")
    for base, error, what in (
        ("../outside/evil.py", UntrustedCodeError, r"evil\.py, line 2: os\.system"),
        (f"{tmp_path}/outside/evil.py", UntrustedCodeError, r"evil\.py, line 2: os\.system"),
        ("/etc/passwd", OSError, r"a\.py: only py/yml/yaml/json type are supported now, got 'passwd'"),
        ("../outside/secret.txt", OSError, r"a\.py: only py/yml"),
        ("http://x.y/z.py", FileNotFoundError, r"a\.py: there is no config file"),
    ):
        path = write("tree/a.py", f"_base_ = {base!r}")
        with pytest.raises(error, match=what):
            Config.fromfile(path)


def test_files_that_never_end(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.py")
    (tmp_path / "zero.py").symlink_to("/dev/zero")
    for name in ("pipe.py", "zero.py"):
        with pytest.raises(OSError, match="not a regular file"):
            Config.fromfile(tmp_path / name)


@pytest.mark.parametrize("name", ["a.yaml", "a.json"])
def test_data_files(name: str, write: Write) -> None:
    bomb = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))
    text = bomb if name == "a.yaml" else '{"a": ' + "[" * 100_000 + "]" * 100_000 + "}"
    with pytest.raises(ConfigError, match=r"too much time or memory|nest"):
        Config.fromfile(write(name, text))


def test_yaml_that_contains_itself(write: Write) -> None:
    with pytest.raises(ConfigError, match="nested more than 100 deep"):
        Config.fromfile(write("a.yaml", "a: &a [*a]\n"))
