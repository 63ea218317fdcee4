"""`logs`: what trials wrote."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from wsolbench import claims
from wsolbench.console import INCOMPLETE, Results, app, say
from wsolbench.store import JOBS, Store


@app.command()
def logs(
    trial_id: Annotated[str, typer.Argument(metavar="TRIAL", help="a trial's id, or how it begins")],
    results: Results = Path("results"),
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="go on as it grows, until the trial has ended")
    ] = False,
) -> None:
    """Print what the last job, attempt and worker of a trial wrote; `run` keeps a log of its failure only."""
    found = Store(results)
    name = found.whole(trial_id)
    shown: dict[Path, int] = {}
    while True:
        over = found.state(name) not in {"new", "running", "preempted"}  # before the last look: nothing is missed
        for path in _logs(found, name):
            _print_new(path, shown)
        if not follow or over:
            break
        time.sleep(1)
    if not any(shown.values()):
        none = "has no log: `wsolbench run` keeps none, and `wsolbench gc` deletes old ones"
        say(f"trial {name} {none if over else f'has written nothing yet: `wsolbench status {name}` says why'}")
        raise typer.Exit(INCOMPLETE)


def _logs(found: Store, name: str) -> Iterator[Path]:
    claim = claims.newest(found, name)
    if claim is not None and (stem := claim.job().get("log")):
        yield from (found.folder / f"{stem}{ending}" for ending in (".out", ".err"))
    for attempt in found.attempts(name)[-1:]:
        yield attempt.folder / "log.txt"
    if by_workers := list(found.folder.glob(f"{JOBS}/*/handover/logs/*-{name}.txt")):
        yield max(by_workers, key=lambda path: path.stat().st_mtime)


def _print_new(path: Path, shown: dict[Path, int]) -> None:
    """Print what a file has got since the last look, under its name where it is not the one shown last."""
    if not path.exists() or path.stat().st_size <= shown.get(path, 0):
        return
    with path.open("rb") as file:
        file.seek(shown.get(path, 0))
        content = file.read()
    if path not in shown or list(shown)[-1] != path:
        print(f"==> {path} <==")
    shown[path] = shown.pop(path, 0) + len(content)
    print(content.decode(errors="replace"), end="", flush=True)
