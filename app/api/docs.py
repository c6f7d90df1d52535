"""The API's description for people: one page of HTML, made from the OpenAPI document, without scripts.

By hand and not with Swagger UI, which keeps our Content-Security-Policy but is 1.7 MB of script and style for ten
calls, and nothing without scripts. Redoc and Scalar put style elements inline, which the policy refuses.
"""

import json
from typing import Any

from flask import render_template

from .openapi import Json, openapi_document
from .routes import blueprint

JSON_TYPE = "application/json"


@blueprint.get("/docs")
def docs() -> str:
    document = openapi_document()
    operations = [
        {"method": method.upper(), "path": path, "command": command(method.upper(), path, operation), **operation}
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    return render_template(
        "api/docs.html",
        info=document["info"],
        operations=operations,
        schemas=document["components"]["schemas"],
        type_of=type_of,
        schemas_in=schemas_in,
        to_json=json.dumps,  # tojson is for scripts: it writes apostrophes as escapes
    )


def command(method: str, path: str, operation: Json) -> str:
    """The call in HTTPie, with the example of each path parameter."""
    for parameter in operation["parameters"]:
        if parameter["in"] == "path":
            path = path.replace(f"{{{parameter['name']}}}", parameter["example"])
    login = "" if operation["security"] == [] or {} in operation["security"] else ' -A bearer -a "$TOKEN"'
    stream = " --stream" if "text/event-stream" in str(operation["responses"]) else ""
    body = operation.get("requestBody", {}).get("content", {}).get(JSON_TYPE, {}).get("examples", {})
    raw = "".join(f" --raw '{json.dumps(example['value'])}'" for example in body.values())
    return f"http{stream}{login} {method} :8000{path}{raw}"


def type_of(schema: Json) -> str:
    """A JSON Schema in a word or two."""
    if "$ref" in schema:
        return str(schema["$ref"].rpartition("/")[2])
    if "const" in schema:
        return json.dumps(schema["const"])
    if "anyOf" in schema:
        return " or ".join(type_of(kind) for kind in schema["anyOf"])
    if schema.get("type") == "array":
        return f"list of {type_of(schema.get('items', {}))}"
    return str(schema.get("type", "any JSON"))


def schemas_in(media: Any) -> list[str]:
    """The names of the schemas that a body is made of."""
    found = json.dumps(media).split("#/components/schemas/")[1:]
    return sorted({part.partition('"')[0] for part in found})
