"""``python -m streamreg``."""

from streamreg.cli import main

main()
