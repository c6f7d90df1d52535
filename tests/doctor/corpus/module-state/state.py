tenant = None
