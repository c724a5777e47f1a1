"""Reading without executing gives what executing gives: examples, and generated programs."""

import re
import sys
import textwrap
import warnings
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from cv.utils.config import Config, ConfigError

HERE = Path(__file__).parent
#: Name to program: what a config may hold.
PROGRAMS = {
    name: program.rstrip("\n")
    for name, _, program in (
        section.partition("\n") for section in (HERE / "programs.txt").read_text("utf-8").split("=== ")[1:]
    )
}
#: Programs that fail when they are executed.
FAILING = (HERE / "failing.txt").read_text("utf-8").rstrip("\n").split("\n---\n")


def outcome(source: str, trust: bool) -> str:
    """The content, with its types, or that it failed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)  # what the compiler finds odd
        try:
            # Sorted: Python 3.10 moves a variable to the end when a string is added to it in place.
            return repr(sorted(Config.fromstring(source, "py", trust=trust).items()))
        except SyntaxError as error:
            return f"SyntaxError {error.msg}"
        except Exception:
            return "failed"


@pytest.mark.parametrize("name", PROGRAMS)
def test_examples(name: str) -> None:
    static = outcome(PROGRAMS[name], trust=False)
    assert static != "failed"
    assert not static.startswith("SyntaxError")
    assert static == outcome(PROGRAMS[name], trust=True)


@pytest.mark.parametrize("source", FAILING)
def test_what_fails_fails_in_both_ways(source: str) -> None:
    static, executed = outcome(source, trust=False), outcome(source, trust=True)
    assert executed == "failed" or executed.startswith("SyntaxError")
    assert static.split()[0] == executed.split()[0]


# Generated programs. Every expression is small, so that no bound is met and executing is safe.
# In the templates N, T, Q and D stand for expressions that often give a number, a text, a sequence or a dict,
# and A for any of them.

LEAVES = {
    "N": "0|1|2|-3|1.5|True|n|m|f",
    "T": "''|'ab'|'a,b'|s|'é{}'|'%s'",
    "Q": "[]|[1, 2]|(3,)|range(3)|seq|{1}|(1, 'a')",
    "D": "{}|dict(a=1)|{'b': 2, 1: 3}|d|dict(a=1, b=dict(a=2))",
}
FORMS = {
    "N": """(N + N)|(N - N)|(N * 2)|(N / N)|(N // N)|(N % N)|(N ** 2)|(-N)|abs(N)|round(N, 1)
        |min(N, N)|max([N, N])|int(A)|float(N)|len(A)|sum(Q)|(N if A else N)|D.get('a', N)
        |(N and A)|(not A)|(N < N <= 3)|(A in Q)|D['a']|Q[-1]|Q[0]|Q[1]|sum(i for i in Q if i)
        |any(i > N for i in Q)|(A == A)|(w := A)|(~N)|(N & N)""",
    "T": """(T + T)|(T * 2)|T.upper()|T.replace('a', T)|','.join([T, T])|str(A)|f'{N}-{A!r:>5}'
        |T[::-1]|T[1:]|T.format(A)|(T % A)|repr(A)|T.zfill(4)|T.strip(T)|('%05.1f' % N)
        |'{:>4}'.format(A)|T.title()|f'{A}{T}'""",
    "Q": """[A, A]|(A, *Q)|[*Q, *Q]|(Q + Q)|(Q * 2)|list(Q)|tuple(A)|sorted(Q)|[i for i in Q]
        |[i * N for i in Q if i]|[(i, j) for i in Q for j in Q]|[x for x, y in zip(Q, Q)]
        |list(enumerate(Q))|T.split(',')|Q[1:]|list(map(str, Q))|sorted(set(Q), key=str)
        |list(D.items())|[i for i in D]|list(reversed(Q))|[[i for i in Q] for i in Q]
        |list(filter(None, Q))|[k for k in D.values()]""",
    "D": """dict(a=A, b=D)|{**D, **D}|dict(D, c=A)|dict(**D)|(D | D)|D.copy()
        |{k: v for k, v in D.items()}|{i: A for i in Q}|{A: 1}|dict(zip('ab', Q))
        |dict.fromkeys(Q, A)""",
}
STATEMENTS = """n = N|s = T|seq = Q|d = D|z = A|n += N|s += T|seq += Q|d |= D|d['k'] = A|d.update(D)
        |seq.append(A)|n, m = N, N|n, *seq = Q|m = z = A|del z|del d['k']|seq.extend(Q)
        |d.pop('a', N)|seq.sort()|seq[0] = A|d['k'] += Q|assert A|T|k, v = Q|seq[1:] = Q
        |del seq[0]"""
BLOCKS = [
    "if A:\n{0}\nelse:\n{1}",
    "for z in Q:\n    if z: break\n{0}\nelse:\n{1}",
    "for z in Q:\n    if not z: continue\n{0}",
    "for i, z in enumerate(Q):\n{0}\n{1}",
    "for k, z in D.items():\n{0}",
]


def pieces(text: str) -> list[str]:
    return [piece.strip() for piece in re.split(r"\|(?! D|=)", text)]


@st.composite
def filled(draw: DrawFn, template: str, depth: int) -> str:
    """A template with its letters replaced by expressions of at most this depth."""

    def expression(match: re.Match[str]) -> str:
        kind = draw(st.sampled_from("NTQD")) if match[0] == "A" else match[0]
        if depth == 0:
            return draw(st.sampled_from(pieces(LEAVES[kind])))
        return draw(filled(draw(st.sampled_from(pieces(FORMS[kind]))), depth - 1))

    return re.sub(r"\b[ANTQD]\b(?!')", expression, template)


@st.composite
def statements(draw: DrawFn, depth: int) -> str:
    if depth == 0 or draw(st.integers(0, 3)):
        return draw(filled(draw(st.sampled_from(pieces(STATEMENTS))), draw(st.integers(0, 2))))
    bodies = [textwrap.indent(draw(statements(depth - 1)), "    ") for _ in range(2)]
    block = draw(filled(draw(st.sampled_from(BLOCKS)), 1).map(lambda text: text.replace("{}", "dict()")))
    return block.replace("{0}", bodies[0]).replace("{1}", bodies[1])


START = "n = 1\nm = 2\nf = 0.5\ns = 'x'\nseq = [1, 2]\nd = dict(a=1)\nz = []\n"
programs = st.lists(statements(2), min_size=1, max_size=5).map(lambda lines: START + "\n".join(lines))
succeeded = 0


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
@given(programs)
def test_generated_programs(source: str) -> None:
    global succeeded
    executed = outcome(source, trust=True)
    static = outcome(source, trust=False)
    assert static.split()[0] == executed.split()[0] if executed == "failed" else static == executed
    succeeded += executed != "failed"


def test_enough_generated_programs_succeed() -> None:
    assert succeeded > 20


def test_deep_but_legal_nesting_is_fine() -> None:
    source = "x = " + "[" * 80 + "1" + "]" * 80
    assert outcome(source, trust=False) == outcome(source, trust=True)


def test_recursion_limit_of_the_caller_is_reported_not_hit() -> None:
    limit = sys.getrecursionlimit()
    source = "x = 1" + " + 1" * 400

    def at_depth(depth: int) -> Any:
        return at_depth(depth - 1) if depth else Config.fromstring(source, "py")

    with pytest.raises(ConfigError, match="nesting this deep"):
        at_depth(limit - 300)
