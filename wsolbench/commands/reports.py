"""`report`: tables out of finished trials."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from wsolbench import documents, files, protocols, shipped, store, words
from wsolbench.console import INCOMPLETE, Results, app, say
from wsolbench.errors import InputError
from wsolbench.store import Store

_NOT_OF_TRIALS = ("data", "device", "workers")


@app.command()
def report(
    file: Annotated[list[str], typer.Argument(metavar="FILE... [KEY=VALUE...]", help="tables, and which trials")],
    results: Results = Path("results"),
    out: Annotated[Path, typer.Option(help="folder for the markdown")] = Path("reports/out"),
) -> None:
    """The tables of reports/*.yaml from the finished trials, as markdown."""
    names = [word for word in file if "=" not in word]
    given = [word for word in file if "=" in word]
    filters = {key: value for key, value in words.values(given).items() if key not in _NOT_OF_TRIALS}
    if "protocol" in filters:
        protocols.protocol(str(filters["protocol"]))
    if Path(str(filters.get("weights"))).is_file():
        filters["weights"] = files.sha256(Path(str(filters["weights"])))
    if not names:
        raise InputError(f"name a report; there are: {', '.join(shipped.names('reports'))}")
    records = store.rows(Store(results).records(), filters.get("protocol"))
    complete = [print_report(name, records, filters, (results, out)) for name in names]
    raise typer.Exit(0 if all(complete) else INCOMPLETE)


def print_report(
    name: str, records: list[dict[str, Any]], filters: Mapping[str, Any], folders: tuple[Path, Path]
) -> bool:
    """Print a table of the results in one folder and write its markdown to another; whether it is complete."""
    from wsolbench import report as reports  # noqa: PLC0415  `--help` does without

    results, out = folders
    path = shipped.find("reports", name)
    if "rows" in documents.read(path).data:
        raise InputError(f"{path} lists networks, not finished trials; `wsolbench overhead {path}` prints it")
    made = reports.report(reports.read(path), records, filters, str(results))
    print(reports.plain(made))
    out.mkdir(parents=True, exist_ok=True)
    target = out / f"{path.stem}.md"
    target.write_text(reports.markdown(made), encoding="utf-8")
    say(f"written: {target}")
    return made.complete
