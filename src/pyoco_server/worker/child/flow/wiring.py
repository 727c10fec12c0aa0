"""What the inputs of a task become when it starts.

pyoco's engine asks its context what an input stands for. Ours knows more than pyoco's own: nested params, and texts
that begin with ``$`` (``model/flow/references``); in flow.yaml also references inside lists and mappings. What stands
in those of a flow made in Python is left alone: it may be anything, and large.
"""

import copy
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from pyoco.core.context import Context, LoopStack

from pyoco_server.model.flow.references import EnvVar, NodeOutput, Param, descend, find_param, has_meaning, read_text


class NothingThere(LookupError):
    """What a reference leads to is not there, although it might have been."""


@dataclass(frozen=True)
class Wired:
    """An input that is not passed on as it is written."""

    written: Any


def wire(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Prepare the inputs of a task of a flow.yaml for the engine.

    Lists and mappings are made anew for every start of a task: what it does to them, no later one finds.
    """
    return {
        name: Wired(value)
        if isinstance(value, (list, dict)) or (isinstance(value, str) and has_meaning(value))
        else value
        for name, value in inputs.items()
    }


class WiredContext(Context):
    """A context that knows what inputs stand for, and which variables of the environment its flow may read."""

    def __init__(self, exposed: Collection[str] = (), **fields: Any) -> None:
        super().__init__(**fields)
        self._exposed = exposed

    def env_data(self) -> dict[str, str]:
        """Return the variables that the flow may read."""
        return {**{name: os.environ[name] for name in self._exposed if name in os.environ}, **self.env}

    def fork(self) -> "WiredContext":
        """Return a context with loops and loop variables of its own, which shares everything else."""
        branch = copy.copy(self)
        branch._vars = dict(self._vars)
        branch._loop_stack = LoopStack()  # type: ignore[no-untyped-call]
        branch._loop_stack._frames = list(self._loop_stack._frames)
        return branch

    def resolve(self, value: Any) -> Any:
        """Return what an input stands for.

        Raises:
            NothingThere: a reference leads to what is not there.
        """
        if isinstance(value, Wired):
            return self._read(value.written)
        return self._follow(value) if isinstance(value, str) and value.startswith("$") else value

    def _read(self, written: Any) -> Any:
        if isinstance(written, list):
            return [self._read(item) for item in written]
        if isinstance(written, dict):
            return {key: self._read(item) for key, item in written.items()}
        return self._follow(written) if isinstance(written, str) else written

    def _follow(self, text: str) -> Any:
        meant = read_text(text)
        try:
            if isinstance(meant, NodeOutput):
                if meant.node not in self.results:
                    raise LookupError(f"{meant.node!r} has not run")
                return descend(self.results[meant.node], meant.fields)
            if isinstance(meant, Param):
                return find_param(self.params, meant.key)
            if isinstance(meant, EnvVar):
                return self._variable(meant.name)
        except LookupError as error:
            raise NothingThere(f"{text!r} in inputs: {error.args[0]}") from None
        return meant

    def _variable(self, name: str) -> str:
        found = self.env_data().get(name)
        if found is None:
            why = "is not set" if name in self._exposed else "is not exposed to this flow (runtime: expose_env)"
            raise LookupError(f"the environment variable {name!r} {why}")
        return found
