"""Insight: each request's time by state, what stops the loop, and which request waits for which.

    observer         the worker's side: one `Insight` for each worker
    account          one request's time, cut into states
    slices           ... which is charged at every switch of greenlets
    routes           sums of finished requests by route pattern
    timing           what leaves with each answer: Server-Timing, request id, fields of the access log
    stalls           the loop did not turn: line, request, length and cause
      stall_facts    what was seen of one stall, and all stalls of a line
      machine        the time that other processes and the hypervisor took from the loop's thread
      watch, alarm   the watch thread, a real OS thread that works while the hub stands still; its kernel timers
      safepoint      when the main thread may be looked at
    callers          which line waits, through which library
      held_connections   database connections that are kept across a call to an upstream
      locks          who holds which lock, and circles of them
      pools          pools of connections: how full, and by whom
      queries        queries per request, and the line that repeats one
      greenlets      lines that start greenlets, and how many are alive
    failures         exceptions that ended requests
    traces, otlp     requests as OpenTelemetry traces, and their way out of the worker
    clients          the clients that send most
    garbage, growth  pauses by the garbage collector; memory that grows, by route
    recent           a ring of the last minute's records, for the flight recorder
    snapshot, facts  all of it as one dict that JSON can carry
    stacks           stacks as lists, with the application's lines marked
    lastwords        what a worker logs before it is killed

Only the hub's thread writes, so there are no locks. The watch thread reads, also while the hub is stuck.
"""
