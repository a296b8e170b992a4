"""The values that a node sees: those of its frame, of the frames around it, and of the run."""

from __future__ import annotations

from collections.abc import Mapping

from domain.workflows.frame import Frame
from domain.workflows.node_type import Write
from domain.workflows.rendering import Selector
from domain.workflows.values import Value, within


class Variables:
    """The variables of a run outside of its nodes."""

    def __init__(
        self,
        mode: str,
        inputs: Mapping[str, Value],
        system: Mapping[str, Value],
        environment: Mapping[str, Value],
        conversation: Mapping[str, Value],
        start: str | None = None,
    ) -> None:
        self.chat = mode == "advanced-chat"
        self.inputs = dict(inputs)
        self.conversation = dict(conversation)
        self.start = start
        """The node under whose id the variables of `sys` are found, too: most files name it in [start, sys.query]."""
        self.spaces = {"sys": dict(system), "env": dict(environment), "conversation": self.conversation}


class View:
    """The values that a node of a frame sees."""

    def __init__(self, variables: Variables, frame: Frame) -> None:
        self._variables, self._frame = variables, frame

    @property
    def chat(self) -> bool:
        return self._variables.chat

    @property
    def inputs(self) -> Mapping[str, Value]:
        return self._variables.inputs

    def find(self, selector: Selector) -> Value | None:
        if len(selector) < 2:
            return None
        space, name = selector[:2]
        names = self._names(space)
        if names is not None and space == self._variables.start and name.startswith("sys."):
            names, name = self._variables.spaces["sys"], name.removeprefix("sys.")
        value = None if names is None else names.get(name)
        return None if value is None else within(value, selector[2:])

    def may_write(self, selector: Selector) -> bool:
        if selector[0] == "conversation":
            return True
        owners = [frame.container.node for frame in self._frame.around() if frame.container]
        return next((owner.type == "loop" for owner in owners if owner.id == selector[0]), False)

    def write(self, write: Write) -> None:
        """Set a variable of the conversation or of a loop."""
        if (names := self._names(write.selector[0])) is not None:
            names[write.selector[1]] = write.value

    def _names(self, space: str) -> dict[str, Value] | None:
        for frame in self._frame.around():
            if space in frame.values:
                return frame.values[space]
        return self._variables.spaces.get(space)
