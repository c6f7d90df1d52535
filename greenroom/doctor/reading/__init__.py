"""Reading an application without importing it: its own files, its deployment files, its packages.

sources        the files, found by following imports; places: their names in findings
project        what they mean: functions, values, names, waits, and which functions requests run
known          facts about other packages
deployment     how it is started today; commands: Procfile, Dockerfile, units, scripts; changes: of a line, as a diff

Rules, by what they are about; every_rule: all of them
    at_import, lazy_imports    code that runs while the application, or a request, imports
    process, folders           the process and the folder that it runs in
    sharing, memory, locks     what requests share and keep
    threads, upstreams, retries, queries, drivers, pools, tasks    what requests wait for
"""
