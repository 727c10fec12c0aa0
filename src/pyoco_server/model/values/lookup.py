"""Reads what a value is and holds without running any of its code.

``isinstance``, ``getattr``, ``repr`` and a dict of classes all may: a class can define ``__class__``, ``__getattr__``
or ``__repr__``, and its metaclass ``__hash__`` or ``__instancecheck__``. What is used here instead are the
interpreter's own descriptors, and the identity of classes.
"""

import sys
from types import GetSetDescriptorType, MemberDescriptorType, ModuleType
from typing import Any

MISSING: Any = object()
"""Stands for an attribute that is not there."""

_NAME = 200
_mro = type.__dict__["__mro__"].__get__
namespace = type.__dict__["__dict__"].__get__
"""Returns what a class itself defines."""
_module = type.__dict__["__module__"].__get__
_qualname = type.__dict__["__qualname__"].__get__


def bases(kind: type) -> tuple[type, ...]:
    """Return a class and all that it inherits from, nearest first."""
    found: tuple[type, ...] = _mro(kind)
    return found


def in_class(kind: type, name: str) -> Any:
    """Return what a class or one of its bases defines under a name, as it stands there."""
    for base in bases(kind):
        found = namespace(base).get(name, MISSING)
        if found is not MISSING:
            return found
    return MISSING


def is_kind(value: Any, kind: type) -> bool:
    """Whether a value's class is, or inherits from, a class."""
    return any(base is kind for base in bases(type(value)))


def attributes(value: Any) -> dict[str, Any] | None:
    """Return a value's own ``__dict__``; ``None`` if it has none."""
    for base in bases(type(value)):
        found = namespace(base).get("__dict__")
        if type(found) is GetSetDescriptorType or type(found) is MemberDescriptorType:  # the latter for modules
            try:
                held = found.__get__(value)
            except (TypeError, AttributeError):  # another class's, put there by hand
                return None
            return held if type(held) is dict else None
    return None


def slot(value: Any, name: str) -> Any:
    """Return what a value holds in one of its class's ``__slots__``."""
    found = in_class(type(value), name)
    if type(found) is not MemberDescriptorType:
        return MISSING
    try:
        return found.__get__(value)
    except (TypeError, AttributeError):
        return MISSING


def attribute(value: Any, name: str) -> Any:
    """Return what a value itself holds under a name, in its ``__dict__`` or its slots."""
    held = attributes(value)
    found = MISSING if held is None else held.get(name, MISSING)
    return slot(value, name) if found is MISSING else found


def loaded(module: str, name: str) -> Any:
    """Return what a module holds under a name, if the module is imported already; no lazy module is woken."""
    found = sys.modules.get(module)
    return attribute(found, name) if type(found) is ModuleType else MISSING


def plain(text: str) -> str:
    """Return a text, also of a subclass of ``str``, as an ordinary one."""
    return text if type(text) is str else str.__str__(text)


def short(name: Any) -> str:
    """Return the name of a class or function, at a length that can be read; code may set it to anything."""
    if type(name) is not str:
        return "?"
    return clean(name if len(name) <= _NAME else f"{name[:_NAME]}…")


def clean(text: str) -> str:
    """Replace lone surrogates, which UTF-8 cannot carry."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def class_name(kind: type) -> str:
    """Return a class's name with its module, as a traceback would show it."""
    name = short(_qualname(kind))
    module = _module(kind)
    return name if module == "builtins" else f"{short(module)}.{name}"
