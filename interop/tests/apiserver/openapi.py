"""Whether a document's schemas are schemas (JSON Schema 2020-12), and answers what it says of them.

Reads {"document": ..., "answers": [{"method", "path", "status", "body"}]} and prints what is wrong, a line each."""

import json
import sys

from jsonschema import Draft202012Validator, RefResolver

asked = json.load(sys.stdin)
document = asked["document"]
resolver = RefResolver("", document)
for name, schema in document["components"]["schemas"].items():
    try:
        Draft202012Validator.check_schema(schema)
    except Exception as error:  # whatever it is, it is told
        print(f"schema {name}: {error}")
for answer in asked["answers"]:
    place = f"{answer['method']} {answer['path']} {answer['status']}"
    responses = document["paths"][answer["path"]][answer["method"]]["responses"]
    response = responses.get(str(answer["status"])) or responses["default"]
    if "$ref" in response:
        response = resolver.resolve(response["$ref"])[1]
    schema = response["content"]["application/json"]["schema"]
    for error in Draft202012Validator(schema, resolver=resolver).iter_errors(answer["body"]):
        where = "/".join(str(part) for part in error.absolute_path)
        print(f"{place}: {where}: {error.message[:300]}")
