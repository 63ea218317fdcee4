"""Writes job scripts with submitit."""

from collections.abc import Mapping
from typing import Any

import submitit


class Executor(submitit.SlurmExecutor):
    """submitit's, but a job runs our entry point, so that no pickle is written, moved or read."""

    @classmethod
    def affinity(cls) -> int:
        """Scripts can be shown where no cluster is."""
        return 2

    def script(self, command: str, asked: Mapping[str, Any], elements: int) -> str:
        """The job script of a command.

        Args:
            command: of the shell.
            asked: submitit's parameters; None is not asked for.
            elements: jobs that run it; a single one makes no array.
        """
        self.parameters.clear()
        given = {key: value for key, value in asked.items() if value is not None}
        self.update_parameters(**self._convert_parameters({**given, "wckey": None}))
        if elements > 1:
            self.parameters["map_count"] = elements
        return self._make_submission_file_text(command, "")
