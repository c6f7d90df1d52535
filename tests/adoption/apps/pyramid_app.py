"""Pyramid: routes, a renderer, an exception view."""

from pyramid.config import Configurator
from pyramid.httpexceptions import HTTPForbidden


def hello(request):
    return {"hello": request.matchdict["name"], "method": request.method}


def forbidden(request):
    raise HTTPForbidden("not you")


with Configurator() as config:
    config.add_route("hello", "/hello/{name}")
    config.add_route("forbidden", "/forbidden")
    config.add_view(hello, route_name="hello", renderer="json")
    config.add_view(forbidden, route_name="forbidden")
    app = config.make_wsgi_app()
