"""Insight: where each request's time goes, what stops the loop, who waits for what.

observer   what the worker tells, and what is known: one `Insight` for each worker
account    one request's time, cut into states; `Slices` charges it at every switch of greenlets
routes     the sums of finished requests by route pattern
timing     what leaves with each answer: Server-Timing, request id, the access log's fields
stalls     the loop did not turn: which line, which request, how long, and whose fault it was not
  machine  what other processes and the hypervisor took from the loop's thread
  watch    the watch thread: a real OS thread that looks on when the hub can't
held       database connections that are kept while an upstream is waited for
locks      who holds which lock, and who waits in a circle
pools      how full the pools of connections are, and who holds what
greenlets  which lines start greenlets, and how many of theirs there are
snapshot   all of it as one JSON-able dict: `snapshot(worker)`, and the stacks of one request
lastwords  what a worker says before it is killed
stacks     stacks as lists, and which of their lines is the application's
ring       the last minute, for the flight recorder

One writer, the hub's thread; no locks. The watch thread only reads, and can do so while the hub is stuck.
"""
