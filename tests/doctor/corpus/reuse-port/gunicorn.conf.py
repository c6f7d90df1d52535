worker_class = "gevent"
reuse_port = True  # <- reuse-port-max-requests
max_requests = 1000
