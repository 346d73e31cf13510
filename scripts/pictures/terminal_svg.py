"""A recording of a terminal as an SVG file that moves by itself. CSS only, no script: it plays where images do."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

COLUMN, ROW, MARGIN = 7.83, 17.0, 14.0
"""Of a character at 13 px, and around the whole, in pixels."""
LAST_SECONDS = 4.0
"""How long the last picture stays before it begins again."""
_STYLE = re.compile("\x1b\\[([0-9;]*)m")
_CSS = """\
text{font:13px ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;fill:#d6d9dc;white-space:pre}
.b{font-weight:700}.d{fill:#8a9199}.c1{fill:#ff7b72}.c2{fill:#7ee787}.c3{fill:#e3b341}.c4{fill:#79c0ff}.c5{fill:#d2a8ff}.c6{fill:#76e3ea}
"""


@dataclass(frozen=True, slots=True)
class Frame:
    """What was seen from `at` on, in seconds from the beginning: lines with ANSI styles."""

    at: float
    lines: tuple[str, ...]


def film(frames: Sequence[Frame], width: int, height: int, title: str) -> str:
    """The SVG of a recording that is `width` columns wide and `height` lines high."""
    frames = [frame for before, frame in zip([None, *frames], frames, strict=False) if changed(before, frame)]
    lines = sorted({line for frame in frames for line in frame.lines if line})
    ids = {line: f"l{number}" for number, line in enumerate(lines)}
    wide, high = width * COLUMN + 2 * MARGIN, height * ROW + 2 * MARGIN
    total = frames[-1].at + LAST_SECONDS
    steps = "".join(
        f"{100 * frame.at / total:.3f}%{{transform:translateX({-number * wide:.0f}px)}}"
        for number, frame in enumerate(frames)
    )
    last = -(len(frames) - 1) * wide
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide:.0f} {high:.0f}" width="{wide:.0f}" '
        f'height="{high:.0f}" role="img"><title>{escape(title)}</title>',
        f"<style>{_CSS}@keyframes k{{{steps}100%{{transform:translateX({last:.0f}px)}}}}",
        f".k{{animation:k {total:.1f}s steps(1,end) infinite}}",
        "@media (prefers-reduced-motion:reduce)"
        f"{{.k{{animation:none;transform:translateX({last:.0f}px)}}}}</style>",
        f"<defs>{''.join(_row(ids[line], line) for line in lines)}</defs>",
        '<rect width="100%" height="100%" rx="8" fill="#15181c"/><g class="k">',
    ]
    for number, frame in enumerate(frames):
        parts.append(f'<g transform="translate({number * wide:.0f})">')
        parts += (
            f'<use href="#{ids[line]}" y="{place * ROW:.0f}"/>'
            for place, line in enumerate(frame.lines)
            if line
        )
        parts.append("</g>")
    return "\n".join([*parts, "</g></svg>", ""])


def changed(before: Frame | None, frame: Frame) -> bool:
    """Whether this is another picture than the one before."""
    return before is None or before.lines != frame.lines


def _row(name: str, line: str) -> str:
    spans, column = "", 0
    for text, classes in _pieces(line):
        if text.strip():
            style = f' class="{" ".join(classes)}"' if classes else ""
            # textLength keeps tables straight whatever the font is.
            place = f'x="{MARGIN + column * COLUMN:.1f}" y="{MARGIN + 13:.0f}"'
            place += f' textLength="{len(text) * COLUMN:.1f}"'
            spans += f"<text {place}{style}>{escape(text, quote=False)}</text>"
        column += len(text)
    return f'<g id="{name}">{spans}</g>'


def _pieces(line: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Text with the classes of its style."""
    classes: tuple[str, ...] = ()
    for number, part in enumerate(_STYLE.split(line)):
        if number % 2 == 0:
            if part:
                yield part, classes
            continue
        for code in part.split(";"):
            match code:
                case "" | "0":
                    classes = ()
                case "1":
                    classes = (*classes, "b")
                case "2" | "90":
                    classes = (*classes, "d")
                case "39":
                    classes = tuple(one for one in classes if not one.startswith("c"))
                case _ if re.fullmatch(r"3[1-6]", code):
                    classes = (*classes, f"c{code[1]}")
