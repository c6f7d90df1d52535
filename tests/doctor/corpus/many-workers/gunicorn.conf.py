import multiprocessing

worker_class = "gevent"
workers = multiprocessing.cpu_count() * 2 + 1  # <- workers-above-cores
