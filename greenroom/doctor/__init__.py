"""`greenroom doctor shop:app`: what an application will do on gevent, proved by reading and by running it.

    command        the options, and the exit code
    examination    reading, importing, driving and measuring, in order and within the time there is
    reading/       without importing: the application's own files, its deployment files, its packages
    importing      in two child processes, patched and not; queued: what other processes cost it
    versions       packages whose versions Greenroom does not know
    plan           which routes and requests to ask; login: those behind a login
    driving        asks them under a real worker (server); inside/ looks on in the application's processes
      log, executors    errors in the server's log; executors that were full
    gains          the same load under sync, gthread and Greenroom; answers: how they differ
    judging        from what was seen to findings; rules: the list of all; wording: their common words
      first_imports    modules that the first request imports
    findings       one finding: place, sentence, change; accepted: those that a team knows; shapes: what a report says
    scratch        the doctor's folder and processes, and undoing what the application left
    output/        terminal, JSON, HTML

Nothing here imports the application into the process of the command, and nothing patches that process.
"""
