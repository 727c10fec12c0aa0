"""Python imports this at the start of each subprocess of a run: it adds the run's own places to the path.

They come last, behind the standard library and what is installed. A ``sitecustomize`` of somebody else, which this one
hides, is imported afterwards.
"""

import importlib
import os
import sys


def _add_places() -> None:
    # A subprocess may be another Python, for which the packages there were not made.
    if os.environ.get("PYOCO_RUN_PYTHON") == f"{sys.version_info[0]}.{sys.version_info[1]}":
        places = os.environ.get("PYOCO_RUN_PATH", "").split(os.pathsep)
        sys.path.extend(place for place in places if place and place not in sys.path)


def _import_the_next_one() -> None:
    here = __file__.rpartition(os.sep)[0]
    sys.path[:] = [place for place in sys.path if place != here]
    this = sys.modules.pop("sitecustomize", None)
    try:
        importlib.import_module("sitecustomize")
    except ImportError as error:
        if error.name != "sitecustomize":
            raise
    finally:
        if this is not None:
            sys.modules.setdefault("sitecustomize", this)


_add_places()
_import_the_next_one()
