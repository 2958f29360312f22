"""`tf`: tensorflow, imported without its greetings, and without the accelerators, which belong to JAX.

Its libraries write to standard error before any flag or variable takes effect ("Could not find cuda drivers", errors of
cuInit; TF_CPP_MIN_LOG_LEVEL=3 still leaves four lines in 2.21). So the file descriptor itself is redirected while
tensorflow is loaded and looks for devices; if that fails, everything withheld is written out.
"""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator


@contextlib.contextmanager
def _standard_error_withheld() -> Iterator[None]:
    sys.stderr.flush()
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as withheld:
        os.dup2(withheld.fileno(), 2)
        try:
            yield
        except BaseException:
            withheld.seek(0)
            os.write(terminal, withheld.read())
            raise
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)


with _standard_error_withheld():
    import tensorflow as tf

    if tf.config.get_visible_devices("GPU"):
        tf.config.set_visible_devices([], "GPU")
