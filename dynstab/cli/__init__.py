"""The command line: it translates, the library does the work."""

from dynstab.cli.app import app, main

__all__ = ["app", "main"]
