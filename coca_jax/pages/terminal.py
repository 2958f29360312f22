"""Tables for terminals."""

from collections.abc import Sequence


def text_table(rows: Sequence[Sequence[str]], alignment: str = "<>") -> str:
    """Rows as lines with aligned columns, two spaces apart.

    Args:
      rows: texts; all rows have the same length.
      alignment: "<" (left) or ">" (right) for each column; the last one holds for all further columns.

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
