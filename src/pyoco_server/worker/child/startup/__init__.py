"""A directory for ``PYTHONPATH`` of a run's subprocesses; see ``sitecustomize`` in it."""

PLACES = "PYOCO_RUN_PATH"
"""Variable with the directories that a run imports from beside its worker's packages."""
VERSION = "PYOCO_RUN_PYTHON"
"""Variable with the Python version that they were made for."""
