"""One file is one format: its `render(report)` is the text of a file whose name ends as the module is called."""
