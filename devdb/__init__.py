"""The database of development: a PostgreSQL that needs no installation, beside the application and not in it.

    prepare    `python -m devdb.prepare`: what runs beside the server while it lives
    server     the embedded server, shared by all processes of this machine that need it
    cluster    its data folder, made with initdb, started and stopped with pg_ctl
    programs   the programs of PostgreSQL, and the user that runs them where we are root

With DATABASE_URL set none of it is used but the check of migrations at the start.
"""
