"""`greenroom load`: how much a server takes, and what limits it.

commands, building   the options, and the plan that they make
running              from the plan to the exit code; finding, capacity: --find-capacity
plan                 one run: target, requests, rate, expectations
  target, request, checks, expectations, units
  arrivals, pacing   when requests are due: planned, or when a user is free
  sources, scenario  arrivals from a log, HAR file or recording; a Python file of functions
  session, login     the login before the load
engine               sends each request at its planned moment
  connection, wire, http2, polling
tally, histogram     the outcome of each request, by kind and second
causes               what the target's ops page says meanwhile
validity             whether the numbers are the server's or the generator's
result               one dict that JSON can carry
  summary, live, report_page, comparing, locustfile
"""
