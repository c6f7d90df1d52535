worker_class = "gevent"
workers = 64  # <- workers-above-cores
