"""`python -m pwf.cli`: the command line where its script is not on the PATH, as in its own workers."""

from pwf.cli import main

main()
