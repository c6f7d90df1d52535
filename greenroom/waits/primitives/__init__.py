"""Waits of the standard library, bounded by the request's budget: sleep, sockets, locks, queues, threads, processes."""

from .hub import install as install_hub

__all__ = ["install_hub"]
