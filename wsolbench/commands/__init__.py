"""Commands, a module for each group of them; every file here is found by being here."""
