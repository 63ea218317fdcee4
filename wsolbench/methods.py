"""Finds the methods: the files of `methods/`, and those of the folders in `WSOLBENCH_METHODS`."""

import os

from wsolbench import shipped

# A module that has a __path__ is a package: an adapter is wsolbench.methods.<name> in a checkout and in a wheel, so it
# imports and pickles alike.
_own = [folder for folder in os.environ.get("WSOLBENCH_METHODS", "").split(os.pathsep) if folder]
__path__ = [*_own, str(shipped.folder("methods"))]
