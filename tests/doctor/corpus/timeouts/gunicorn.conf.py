worker_class = "gevent"
timeout = 30
