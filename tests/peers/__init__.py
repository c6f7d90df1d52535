"""Test suites of the packages that Greenroom waits for, run under it and without it: `python -m tests.peers`.

We fail nothing that the same suite passes without us, but for what `allowed.txt` lists, with reasons. Nothing of these
suites is kept in this repository: CPython's comes with the interpreter, the others are source distributions at the
version that is installed, from the package index, unpacked into a folder of their own.
"""
