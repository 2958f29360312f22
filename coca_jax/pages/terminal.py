"""Tables for terminals."""

from collections.abc import Sequence


def text_table(rows: Sequence[Sequence[str]], alignment: str = "<>") -> str:
    """Rows as lines with columns aligned left ("<") or right (">"), the last sign for all further ones, two spaces apart.

    >>> print(text_table([("loss", "1.5"), ("accuracy", "0.25")]))
    loss       1.5
    accuracy  0.25
    """
    columns = [*zip(*rows, strict=True)]
    sides = alignment.ljust(len(columns), alignment[-1])
    widths = [max(map(len, column)) for column in columns]
    lines = (
        "  ".join(f"{cell:{side}{width}}" for cell, side, width in zip(row, sides, widths, strict=False))
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)
