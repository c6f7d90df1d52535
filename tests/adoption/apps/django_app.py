"""Django in one file: its ORM on SQLite or PostgreSQL (persistent connections), a form with CSRF, an error page."""

import fcntl
import os
import sys
import tempfile
from urllib.parse import parse_qs, urlsplit

import django
from django.conf import settings

DATABASE = os.environ.get("ADOPTION_DATABASE", os.path.join(tempfile.gettempdir(), "adoption-django.sqlite"))


def database():
    url = urlsplit(os.environ.get("ADOPTION_POSTGRES", ""))
    if not url.scheme:
        return {"ENGINE": "django.db.backends.sqlite3", "NAME": DATABASE}
    host = parse_qs(url.query).get("host", [url.hostname])[0]
    named = {"HOST": host, "PORT": url.port or "", "USER": url.username, "PASSWORD": url.password or ""}
    return {"ENGINE": "django.db.backends.postgresql", "NAME": url.path[1:], **named, "CONN_MAX_AGE": 60}


settings.configure(
    SECRET_KEY="adoption",
    DEBUG=False,
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    DEFAULT_AUTO_FIELD="django.db.models.AutoField",
    MIDDLEWARE=["django.middleware.common.CommonMiddleware", "django.middleware.csrf.CsrfViewMiddleware"],
    DATABASES={"default": database()},
)
django.setup()

from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.db import connection, models, transaction  # noqa: E402
from django.http import JsonResponse  # noqa: E402
from django.urls import path  # noqa: E402
from django.views.decorators.csrf import csrf_exempt  # noqa: E402


class Book(models.Model):
    title = models.CharField(max_length=100)

    class Meta:
        app_label = "shop"


with open(DATABASE + ".lock", "w") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)  # one worker after the other
    if Book._meta.db_table not in connection.introspection.table_names():
        with connection.schema_editor() as editor:
            editor.create_model(Book)
connection.close()


@csrf_exempt
def books(request):
    if request.method == "POST":
        with transaction.atomic():
            return JsonResponse({"id": Book.objects.create(title=request.POST["title"]).id}, status=201)
    return JsonResponse({"books": list(Book.objects.order_by("id").values_list("title", flat=True))})


def protected(request):
    return JsonResponse({"ok": True})


urlpatterns = [path("books", books), path("protected", protected)]
app = get_wsgi_application()
sys.modules.setdefault("shop", sys.modules[__name__])
