"""The language of a flow's graph: pyoco's chains and control terms, and on top of them lines, ``&`` and ``|``.

A text becomes terms (``parser``), terms become steps that wait for each other (``plan``), and those become pyoco's own
nodes (``compiler``). Nothing of it is run as Python.
"""
