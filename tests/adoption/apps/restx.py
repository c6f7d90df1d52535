"""Flask-RESTX: a namespace, marshalling, swagger.json."""

from flask import Flask
from flask_restx import Api, Resource, fields

app = Flask(__name__)
api = Api(app, version="1.0", title="Todos")
todo = api.model("Todo", {"id": fields.Integer, "task": fields.String(required=True)})
namespace = api.namespace("todos")


@namespace.route("/<int:number>")
class Todo(Resource):
    @namespace.marshal_with(todo)
    def get(self, number):
        return {"id": number, "task": f"task {number}", "hidden": True}

    @namespace.expect(todo, validate=True)
    @namespace.marshal_with(todo, code=201)
    def put(self, number):
        return {"id": number, **api.payload}, 201
