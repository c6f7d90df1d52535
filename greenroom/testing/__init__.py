"""What the pytest plug-in looks at: code that stops the loop, and what a test leaves behind.

slices      the longest uninterrupted run of a test, and the line in it
leftovers   threads, greenlets, locks, listeners and database connections that are there afterwards
xdist       pytest-xdist's processes, patched as well
"""
