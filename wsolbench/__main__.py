"""python -m wsolbench."""

from wsolbench.cli import main

main()
