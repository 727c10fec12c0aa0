"""How much of the interface a server has. It says so with each answer, so that clients know what it would leave aside.

A server that says nothing, or a lower number than its client's, is asked for its description (``/openapi.json``).
"""

HEADER = "Pyoco-Level"

LEVEL = 1
"""One more with each path, option or field that clients came to send."""
