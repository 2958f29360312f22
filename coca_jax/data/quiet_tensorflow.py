"""`tf`: tensorflow, imported without its greetings, and without the accelerators, which belong to JAX.

Its libraries write to standard error before anybody can tell them not to ("oneDNN custom operations are on", "Could not
find cuda drivers", and where there is a GPU, of cuInit and cuDNN): no flag or variable reaches these lines. So the file
descriptor itself is turned away while tensorflow is loaded and looks for devices; where that fails, all is shown.
"""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator


@contextlib.contextmanager
def _standard_error_withheld() -> Iterator[None]:
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        try:
            yield
        except BaseException:
            said.seek(0)
            os.write(kept, said.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


with _standard_error_withheld():
    import tensorflow as tf

    if tf.config.get_visible_devices("GPU"):
        tf.config.set_visible_devices([], "GPU")
