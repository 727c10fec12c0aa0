"""A flow in Python, for ``pyoco-worker --flow-resolver examples/hello_flow.py:resolve_flow``."""

from pyoco import Flow, task


@task
def hello(name: str = "world") -> str:
    """Greet."""
    print(f"greeting {name}")
    return f"hello {name}"


@task
def shout(hello: str) -> str:
    """Say it louder."""
    return hello.upper() + "!"


def resolve_flow(flow_name: str) -> Flow:
    """Give the flow of this name; the worker asks once for each run.

    Raises:
        KeyError: there is none, and the run ends FAILED with the reason flow_not_found.
    """
    if flow_name != "main":
        raise KeyError(flow_name)
    return Flow(name=flow_name) >> hello >> shout
