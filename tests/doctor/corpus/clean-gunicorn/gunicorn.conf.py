bind = "127.0.0.1:8000"
worker_class = "greenroom.worker.GreenWorker"
workers = 1
timeout = 60
graceful_timeout = 30
max_requests = 10_000
max_requests_jitter = 1000
