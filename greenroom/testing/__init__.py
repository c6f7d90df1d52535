"""The checks of the pytest plug-in: code that stops the loop, and leftovers of a test.

slices      the longest uninterrupted run of a test, and the line in it
leftovers   threads, greenlets, locks, listeners and database connections that are there afterwards
xdist       pytest-xdist's processes, patched as well
"""
