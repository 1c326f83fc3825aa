"""A `recorder` in a process of its own, which can be killed, and what it has recorded."""

import json
import os
import signal
import sys
from pathlib import Path

from process import Process, child_env


class Recorder(Process):
    """Takes spans inside its `with` block; with `holds` it records every request and answers none.

    Several one after another write into the same file of `directory`.
    """

    def __init__(self, protocol: str, port: int, directory: Path, *, holds: bool = False) -> None:
        self._file = directory / "requests"
        super().__init__(
            "recorder",
            [
                sys.executable,
                *("-m", "faults.recorder", protocol, str(port), str(self._file)),
                *(["--hold"] if holds else []),
            ],
            ports=[port],
            directory=directory,
            env=child_env(
                PYTHONPATH=os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
            ),
        )

    def kill(self) -> None:
        """`kill -9`."""
        assert self._popen is not None
        self._popen.send_signal(signal.SIGKILL)
        self._popen.wait()

    @property
    def requests(self) -> list[list[int]]:
        """The numbers of the spans of every request that has arrived so far."""
        lines = self._file.read_text().splitlines(keepends=True)
        # One that is being written has no end yet.
        return [json.loads(line) for line in lines if line.endswith("\n")]
