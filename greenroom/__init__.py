"""Greenroom: plain blocking Flask, served on gevent.

Importing this package changes nothing. Patching happens where the name says so:
`greenroom.patching.patch()`.
"""

__version__ = "0.1.0"
