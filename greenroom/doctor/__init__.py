"""`greenroom doctor shop:app`: what an application will do on gevent, proved by reading and by running it.

    reading/     without importing: the application's own files, its deployment files, its packages
    importing    in two child processes, patched and not; `import_child` is what runs there
    driving      served by a real worker: `server`, `asking`, `routes`; `inside` is what looks on in the worker
    judging      what was seen becomes findings
    findings     one finding; `rules` has the list of them all
    output/      terminal, JSON, HTML
    command      the options and the order of things

Nothing here imports the application into the process of the command, and nothing patches that process.
"""
