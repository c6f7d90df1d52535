worker_class = "gevent"
timeout = 60
graceful_timeout = 60
