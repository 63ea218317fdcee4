"""The whole report as a folder of static pages: tables, figures, a gallery, and a page for each trial."""
