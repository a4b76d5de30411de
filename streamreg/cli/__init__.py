"""The command line: ``streamreg COMMAND``."""

from streamreg.cli.app import main

__all__ = ["main"]
