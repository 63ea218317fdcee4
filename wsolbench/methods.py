"""Finds the methods: the files of `methods/`, and those of the folders in `WSOLBENCH_METHODS`."""

import os
from pathlib import Path

# A checkout keeps methods/ beside this package, a wheel inside it as _methods/. A module that has a
# __path__ is a package: an adapter is wsolbench.methods.<name> in both, so it imports and pickles alike.
_here = Path(__file__).resolve().parent
_shipped = _here / "_methods" if (_here / "_methods").is_dir() else _here.parent / "methods"
_own = [folder for folder in os.environ.get("WSOLBENCH_METHODS", "").split(os.pathsep) if folder]
__path__ = [*_own, str(_shipped)]
