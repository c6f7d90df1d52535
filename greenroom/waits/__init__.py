"""Blocking calls of an application, made to wait in the event loop.

stdlib/              sleep, sockets, locks, queues: each wait has a name and an end (see greenroom/in_flight.py)
  happy_eyeballs     connecting to a name: IPv6 and IPv4 side by side
  dns                looking up names: remembered, in threads, bounded
  parking            waiting until another greenlet or thread wakes this one
  polling            the system's poll(), for threads that may block
  starting           threads that real threads start; real_threads: their calls that would make an event loop
  giving_way         sources that are always ready give way after a bounded piece
http/                `requests` over one pool of connections for each upstream
coroutines/          `async def` views and asyncio-only libraries
processes            multiprocessing; subprocesses: `subprocess`; programs: os.system, os.wait
  children           one pidfd for each child
  descriptors        os.read, os.write, fcntl.flock; closing: os.close
postgres             psycopg2: the callback that libpq waits with
  query_wait         the wait for a query, its end, and cancelling; copying: COPY
  resolving          the host's addresses; connect_failures: words for what fails
  libpq              what psycopg2 does not offer, through ctypes
pool, pool_line      SQLAlchemy's pool, and the requests that wait for its connections
  pool_advice        warnings about an engine's connections
  two_users          one connection that two requests use
sqlite               waits for the file's lock
  sqlite_statements, slow_statements    the kind of a statement; long ones run in a thread the next time
  sqlite_transactions                   whose transaction it waits for
  sqlite_patience, sqlite_rows          its busy timeout; executemany()'s rows
django_connections, unclosed_connections    connections that end with their request, or should have
threads, in_loop     from greenlets to real threads, and back
naming, peers        requests and statements in words; what upstreams and databases answer
"""
