"""Turns CUDA source into C++: the two constructs that macros cannot reach.

    kernel<T, 4><<<grid, block, 0, stream>>>(a, b);
        ::simt::launch("kernel<T, 4>", __FILE__, __LINE__, grid, block, 0, stream,
                       [&](const auto&... simt_args) { kernel<T, 4>(simt_args...); }, a, b);
    __shared__ Box<A> rows[16];
        auto& rows = ::simt::shared<Box<A>[16]>("rows", [] {});

Lines stay where they are, so messages name those of the source. What the source asks about the compiler of
kernels (`__CUDA_ARCH__`, `__CUDACC__`) is answered as on a GPU of architecture 9.0, in our files and not in
torch's: the names get a prefix.
"""

from __future__ import annotations

import re
from pathlib import Path

_OPENING, _CLOSING = "([{", ")]}"


class TranslationError(ValueError):
    """The source has a construct that this translator does not know."""


def translate(source: str, name: str = "source") -> str:
    """The C++ form of one file."""
    source = re.sub(r"\b(__CUDA_ARCH__|__CUDACC__)\b", r"SIMT_\1", source)
    return _shared(_launches(source, name), name)


def translate_tree(source: Path, target: Path) -> None:
    """Translate all headers and CUDA files below ``source``; what stays the same is not written again."""
    for path in sorted(source.rglob("*")):
        if path.suffix not in (".h", ".cuh", ".cu"):
            continue
        to = target / path.relative_to(source)
        text = f'#line 1 "{path.relative_to(source)}"\n' + translate(
            path.read_text(encoding="utf-8"), path.name
        )
        if not to.exists() or to.read_text(encoding="utf-8") != text:
            to.parent.mkdir(parents=True, exist_ok=True)
            to.write_text(text, encoding="utf-8")


def masked(source: str) -> str:
    """The source with comments and literals blanked, every character where it was."""

    def blank(match: re.Match[str]) -> str:
        return re.sub(r"[^\n]", " ", match[0])

    return re.sub(
        r"""//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])+'""", blank, source, flags=re.DOTALL
    )


def _launches(source: str, name: str) -> str:
    done = 0
    parts: list[str] = []
    code = masked(source)
    for match in re.finditer("<<<", code):
        if match.start() < done:
            raise TranslationError(f"{name}:{_line(code, match.start())}: a launch inside a launch")
        start = _start_of_callee(code, match.start(), name)
        shape_end = _matching(code, match.end(), ">>>", name)
        opening = re.compile(r"\s*\(").match(code, shape_end + 3)
        if opening is None:
            raise TranslationError(f"{name}:{_line(code, match.start())}: a launch without arguments")
        end = _matching(code, opening.end(), ")", name)
        callee = source[start : match.start()].strip()
        shape = _split(source[match.end() : shape_end], code[match.end() : shape_end])
        arguments = source[opening.end() : end]
        shape += ["0"] * (4 - len(shape))
        title = " ".join(callee.split()).replace('"', "'")
        call = f"[&](const auto&... simt_args) {{ {callee}(simt_args...); }}"
        parts.append(source[done:start])
        parts.append(
            f'::simt::launch("{title}", __FILE__, __LINE__, {", ".join(shape)}, {call}'
            f"{', ' if arguments.strip() else ''}{arguments})"
        )
        parts.append("\n" * (source.count("\n", start, end) - parts[-1].count("\n")))
        done = end + 1
    return "".join(parts) + source[done:]


def _shared(source: str, name: str) -> str:
    done = 0
    parts: list[str] = []
    code = masked(source)
    for match in re.finditer(r"\b__shared__\b", code):
        end = code.index(";", match.end())
        text = " ".join(source[match.end() : end].split())
        declaration = re.fullmatch(
            r"(?P<type>.+?)\s*\b(?P<name>[A-Za-z_]\w*)\s*(?P<extents>(?:\[[^\[\]]*\])*)", text
        )
        if declaration is None or declaration["extents"] == "[]":
            raise TranslationError(f"{name}:{_line(code, match.start())}: __shared__ {text}")
        if len(_split(text, masked(text))) > 1:
            raise TranslationError(
                f"{name}:{_line(code, match.start())}: one __shared__ variable a line, please"
            )
        variable = declaration["name"]
        parts.append(source[done : match.start()])
        whole = declaration["type"] + declaration["extents"]
        parts.append(f'auto& {variable} = ::simt::shared<{whole}>("{variable}", [] {{}})')
        parts.append("\n" * source.count("\n", match.start(), end))
        done = end
    return "".join(parts) + source[done:]


def _line(code: str, at: int) -> int:
    return code.count("\n", 0, at) + 1


def _start_of_callee(code: str, end: int, name: str) -> int:
    """Where the name before ``<<<`` begins, template arguments and namespaces included."""
    at = len(code[:end].rstrip())
    while True:
        if code[at - 1] == ">":
            at = _opening_angle(code, at - 1, name)
        word = re.search(r"\w+$", code[:at])
        if word is None:
            raise TranslationError(f"{name}:{_line(code, end)}: no kernel's name before <<<")
        at = word.start()
        if code[:at].endswith("::"):
            at -= 2
            if not re.search(r"[\w>]$", code[:at]):
                return at
            continue
        return at


def _opening_angle(code: str, at: int, name: str) -> int:
    """The ``<`` that the ``>`` at ``at`` closes; brackets in between are stepped over."""
    depth = 0
    i = at
    while i >= 0:
        c = code[i]
        if c in _CLOSING:
            nested = 1
            while nested:
                i -= 1
                nested += (code[i] in _CLOSING) - (code[i] in _OPENING)
        elif c == ">" and code[i - 1] != "-":
            depth += 1
        elif c == "<":
            depth -= 1
            if depth == 0:
                return i
        elif c in ";{":
            break
        i -= 1
    raise TranslationError(f"{name}:{_line(code, at)}: no < for this >")


def _matching(code: str, at: int, closing: str, name: str) -> int:
    """Where ``closing`` stands outside all brackets, from ``at`` on."""
    depth = 0
    for i in range(at, len(code)):
        if depth == 0 and code.startswith(closing, i):
            return i
        depth += (code[i] in _OPENING) - (code[i] in _CLOSING)
    raise TranslationError(f"{name}:{_line(code, at)}: no {closing} for this launch")


def _split(text: str, code: str) -> list[str]:
    """The parts of ``text`` between commas outside brackets; ``code`` is the same text, masked."""
    parts, depth, begin = [], 0, 0
    for i, c in enumerate(code):
        if c in "([{<":
            depth += 1
        elif c in ")]}>":
            depth -= 1
        elif c == "," and depth == 0:
            parts.append(text[begin:i].strip())
            begin = i + 1
    return [*parts, text[begin:].strip()]
