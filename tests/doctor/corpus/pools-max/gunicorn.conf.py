worker_class = "gevent"
workers = 2
