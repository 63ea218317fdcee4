"""`doctor`: whether this machine, its disks and its cluster are fit for trials."""

import json
from dataclasses import asdict
from pathlib import Path

import typer

from wsolbench import doctor as checks
from wsolbench.console import ENVIRONMENT, Json, Results, app


@app.command()
def doctor(results: Results = Path("results"), as_json: Json = False) -> None:
    """Check Python, torch, disks, clocks and SLURM, and say how to mend what is wrong."""
    found = list(checks.findings(results))
    if as_json:
        print(json.dumps([asdict(finding) for finding in found], indent=1))
    for finding in () if as_json else found:
        print(f"{finding.verdict:5}  {finding.check:14}  {finding.found}")
        if finding.fix:
            print(f"{'':5}  {'':14}  -> {finding.fix}")
    raise typer.Exit(ENVIRONMENT if any(finding.verdict == "wrong" for finding in found) else 0)
