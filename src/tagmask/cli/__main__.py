"""`python -m tagmask`."""

from tagmask.cli import main

main()
