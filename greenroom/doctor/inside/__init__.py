"""The doctor's code inside the application's own processes.

importing       the child that imports it; connecting: which databases it opens; routes: what it serves; lines: its own
gunicorn_conf   the configuration of its worker; probe: what happens in it
quarantine      writes go to copies, or are taken back
"""
