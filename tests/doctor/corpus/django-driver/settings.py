DATABASES = {"default": {"ENGINE": "django.db.backends.mysql"}}  # <- driver-cannot-wait
