"""What a wheel is called in the object store.

One that all tenants share is called like its file, as workers of the existing system expect it. A tenant's is called
``<file name>@<tenant>``, which is the name of no wheel, and is marked for a tag that no worker can serve: a worker that
knows no tenants passes it over.
"""

_AT = "@"
NO_WORKER = ".tenant"
"""Stands for the tags of a tenant's wheel, where programs that know no tenants look for them."""


def object_name(file_name: str, tenant_id: str | None) -> str:
    """Return the name of a wheel's object.

    Args:
        file_name: The wheel's.
        tenant_id: Whose it is; ``None`` for one that all share.
    """
    return file_name if tenant_id is None else f"{file_name}{_AT}{tenant_id}"


def file_name_of(name: str, tenant_id: str) -> str:
    """Return the file name of a tenant's wheel.

    Args:
        name: Of the object.
        tenant_id: The tenant that its header names.

    Raises:
        ValueError: the object's name does not name this tenant.
    """
    file_name, at, named = name.rpartition(_AT)
    if not at or named != tenant_id:
        raise ValueError(f"its header says that it is of tenant {tenant_id!r}, its name does not")
    return file_name
