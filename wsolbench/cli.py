"""The command line: data on stdout, messages on stderr.

Exit codes: 0 done, 1 some trial failed, also for a full disk, 2 usage, 3 incomplete, 4 environment, 130 interrupted.
"""

import errno
import signal
import sys
from typing import NoReturn

from wsolbench import commands, files, memory, plugins
from wsolbench.console import ENVIRONMENT, INTERRUPTED, USAGE, app, say, say_problems
from wsolbench.errors import InputError
from wsolbench.slurm import NoAnswerError

_NO_PLACE = {*files.FULL, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ENOENT, errno.ENAMETOOLONG}
"""What the system says where a file cannot be written there, or be at all."""

for group in plugins.names(commands):
    plugins.load(commands, group)


def main() -> NoReturn:
    """Run the command line; mistakes of the user are told without a traceback."""
    memory.keep()  # what was imported
    try:
        app()
    except SystemExit as end:
        if end.code == INTERRUPTED:  # typer turns a KeyboardInterrupt into this
            _interrupted()
        raise
    except InputError as error:
        say_problems(error.problems)
        sys.exit(USAGE)
    except NoAnswerError as error:
        say(f"error: {error}")
        sys.exit(ENVIRONMENT)
    except OSError as error:
        if error.errno not in _NO_PLACE:
            raise
        say(f"error: {files.reason(error)}")
        sys.exit(ENVIRONMENT)
    except KeyboardInterrupt:
        _interrupted()
        sys.exit(INTERRUPTED)
    sys.exit(0)


def _interrupted() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # one more while Python ends would take the exit code
    say("interrupted; run the same command again to go on from the last checkpoints")
