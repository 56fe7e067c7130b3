"""When the process looks for garbage: rarely, and not through what is there to stay.

Python looks for cycles whenever so many objects were made, and every now and then through all of
them. While a service fills its copies it makes hundreds of thousands that stay, and it would go
through them again and again; afterwards each full look would be a pause for whoever asks then.
So nothing is looked for until the service is up; what is there by then is left out from then on,
and looks come less often than Python's default, which is for programs of another kind.
"""

from __future__ import annotations

import gc

YOUNG = 10_000
MIDDLE = 20
OLD = 20


def wait_for_start() -> None:
    """Look for no garbage until `started`."""
    gc.disable()


def started() -> None:
    """What is there now stays; look for garbage among what comes."""
    gc.freeze()
    gc.set_threshold(YOUNG, MIDDLE, OLD)
    gc.enable()
