"""`greenroom load`: how much a server takes, and what limits it.

running      from options to the exit code          plan         one run: what, where, how often, what is expected
arrivals     when requests are due                   request      what they ask; checks
engine       sends them; connection, wire, polling   tally        what became of them; histogram
expectations thresholds                              validity     whether the numbers are the server's
result       the JSON; summary, live
"""
