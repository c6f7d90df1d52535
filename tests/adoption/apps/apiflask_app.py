"""APIFlask: schemas in and out, an error of validation, the OpenAPI description."""

from apiflask import APIFlask, Schema, abort
from apiflask.fields import Integer, String
from apiflask.validators import Range

app = APIFlask(__name__)
pets = {1: {"id": 1, "name": "Kitty", "age": 3}}


class PetIn(Schema):
    name = String(required=True)
    age = Integer(required=True, validate=Range(min=0))


class PetOut(PetIn):
    id = Integer()


@app.get("/pets/<int:number>")
@app.output(PetOut)
def pet(number):
    return pets.get(number) or abort(404)


@app.post("/pets")
@app.input(PetIn)
@app.output(PetOut, status_code=201)
def add(json_data):
    return {"id": 2, **json_data}
