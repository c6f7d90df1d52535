"""Everything at once, as long as you like: `python -m tests.soak --for 300`. Exit status 1 where anything was wrong.

app       an application that carries nonces through all that requests share, waits, computes, fails, forks
upstream  what it calls: slow, broken and good in turn
clients   users who check their nonces; others who leave, send slowly, read slowly, send nonsense
judging   what is wrong in the log, and in the processes
"""
