"""How far an evaluation is: a bar on a terminal, plain lines now and then elsewhere."""

import contextlib
import logging
import sys
import time
from collections.abc import Callable, Iterator

_log = logging.getLogger(__name__)
_SECONDS = 30  # between two lines


@contextlib.contextmanager
def progress(name: str, total: int) -> Iterator[Callable[[int], None]]:
    """Gives a function to be called with the number of pictures that are done."""
    if sys.stderr.isatty() and _log.isEnabledFor(logging.INFO):
        import tqdm

        with tqdm.tqdm(total=total, desc=name, unit="picture", dynamic_ncols=True, leave=False) as bar:
            yield lambda done: bar.update(done - bar.n)
        return
    said = time.monotonic()

    def line(done: int) -> None:
        nonlocal said
        if done < total and time.monotonic() - said >= _SECONDS:
            said = time.monotonic()
            _log.info("%s: %s of %s pictures", name, f"{done:,}", f"{total:,}")

    yield line
