"""`greenroom tune`: what to set, from what one request costs.

tuning       the command's story: serve, calibrate, propose, verify, tell
serving      the application as it would be served, on a free port
calibration  what one request costs, from insight
model        formulas: costs and bounds -> settings with reasons (docs/tune.md has them, too)
verifying    what is proposed is measured, and its neighbours; only what was better is said
telling      the table, the lines of .env, the fragment of gunicorn.conf.py
"""
