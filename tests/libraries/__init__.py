"""Other libraries' own tests under `pytest -p greenroom.pytest` and without it: `python -m tests.libraries [NAME ...]`.

catalogue   which libraries, and what their tests need
outcomes    what came of a run, and how two runs differ
table       the part of docs/adoption.md that says so
__main__    the environment, the sources, the runs

Nothing of these suites is kept in this repository: they are source distributions at the version that is installed, from
the package index. What may fail in a patched process is listed in allowed.txt, with reasons.
"""
