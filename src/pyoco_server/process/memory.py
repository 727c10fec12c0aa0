"""Python's garbage collector, set so that it does not hold up a server."""

import gc

_THRESHOLDS = (10_000, 20, 20)


def settle_memory() -> None:
    """Leave what the modules have made out of all later collections; for the process of a server, once it is up.

    A full collection goes through a hundred thousand objects of theirs, which live as long as the process, and takes a
    tenth of a second. One request with some ten thousand values in it sets one off.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
