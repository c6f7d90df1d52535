"""Insight: where each request's time goes, what stops the loop, who waits for what.

account    one request's time, cut into states; `Slices` charges it at every switch of greenlets
routes     the sums of finished requests by route pattern
stalls     the loop did not turn: which line, which request, how long, and whose fault it was not
held       database connections that are kept while an upstream is waited for
locks      who holds which lock, and who waits in a circle
timing     what leaves with each answer: Server-Timing, request id, the access log's fields
snapshot   all of it as one JSON-able dict: `snapshot(worker)`, and the stacks of one request
watch      the watch thread: a real OS thread that looks on when the hub can't
lastwords  what a worker says before it is killed

One writer, the hub's thread; no locks. The watch thread only reads, and can do so while the hub is stuck.
"""
