"""The tasks of a run: how they are run, tried again, recorded and reported."""
