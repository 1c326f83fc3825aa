"""The table as text, for a terminal and for Markdown."""

from collections.abc import Sequence
from dataclasses import astuple

from .results import Group

HEADER = ("", "time", "baseline", "result", "lowest .. highest", "target", "", "cpu and export", "spans exported")
LEFT = {0, 5, 6}


def plain(groups: Sequence[Group]) -> str:
    """Columns padded with spaces, a title line above each group."""
    rows = [astuple(line) for group in groups for line in group.lines]
    widths = [max(len(row[column]) for row in (HEADER, *rows)) for column in range(len(HEADER))]

    def text(row: Sequence[str]) -> str:
        cells = [
            cell.ljust(width) if column in LEFT else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        return ("  " + "  ".join(cells)).rstrip()

    lines = [text(HEADER)]
    for group in groups:
        lines += ["", group.title, *(text(astuple(line)) for line in group.lines)]
    return "\n".join(lines)


def markdown(groups: Sequence[Group]) -> str:
    """A pipe table with a bold row above each group."""

    def text(row: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"

    rule = "|" + "|".join("---" if column in LEFT else "---:" for column in range(len(HEADER))) + "|"
    lines = [text(HEADER), rule]
    for group in groups:
        lines.append(text((f"**{group.title}**", *[""] * (len(HEADER) - 1))))
        lines += [text(astuple(line)) for line in group.lines]
    return "\n".join(lines)
