"""What is inside a wheel: whether it is one, stays where it belongs, and gets on with others. Nothing is unpacked.

The gateway looks before it stores a wheel, a worker before it installs one: another program may have stored it.
"""
