"""JSON: the table model as it is, for programs."""

import json
from dataclasses import asdict

from wsolbench.table import Report


def render(report: Report) -> str:
    """The report as one object; numbers as they are, `complete` and the commands that fill it beside its fields."""
    data = {**asdict(report), "complete": report.complete}
    return json.dumps(data, ensure_ascii=False, allow_nan=False, indent=1) + "\n"
