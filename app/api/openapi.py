"""The OpenAPI 3.1 description: openapi.yaml with the schemas that pydantic makes of what is sent.

Not by a library that makes all of it from the views: what APIFlask, flask-openapi3 and spectree make has to be mended
afterwards (see docs/boards.md), which is more than writing it down.
"""

from functools import cache
from pathlib import Path
from typing import Any

import yaml
from flask import current_app
from pydantic.json_schema import GenerateJsonSchema

from .routes import blueprint
from .schemas import BoardDocument

Json = dict[str, Any]


@blueprint.get("/openapi.json")
def openapi_document() -> Json:
    document = written()
    board = BoardDocument.model_json_schema(ref_template="#/components/schemas/{model}", schema_generator=PlainSchema)
    sent = board.pop("$defs") | {"BoardDocument": board}
    board["properties"]["sources"]["maxItems"] = current_app.extensions["config"].SOURCES_PER_BOARD
    components = document["components"]
    schemas = dict(sorted((components["schemas"] | sent).items()))
    return document | {"components": components | {"schemas": schemas}}


@cache
def written() -> Json:
    # PyYAML's parser in C takes a fifth of the time, in which the worker does nothing else; some builds lack it.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    document: Json = yaml.load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"), loader)
    return {name: part for name, part in document.items() if not name.startswith("x-")}


class PlainSchema(GenerateJsonSchema):
    """Without a title for each field that only repeats its name."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False
