"""The doctor's code inside the application's own processes.

importing       the child that imports it; routes: what it serves; lines: which of them are its own
gunicorn_conf   the configuration of its worker; probe: what happens in it
quarantine      writes go to copies, or are taken back
"""
