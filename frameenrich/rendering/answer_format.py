"""Write into a request that the answer is to have a structure: by a schema, a tool or an object.

The words that go with it, where a server takes no schema, are part of the messages by then
(`frameenrich.prepare.json_modes`).
"""

from __future__ import annotations

from frameenrich.model import JobSpec, Json
from frameenrich.rendering.large_choices import without_large_choices
from frameenrich.rendering.strict_schema import strict_schema

TOOL = "answer"
"""What the tool is called that a model is made to call, and the schema."""


def sent_schema(spec: JobSpec) -> dict[str, Json]:
    """Return the schema that is sent, before it is written as strict output wants it."""
    schema = spec.output.schema or {}
    return without_large_choices(schema)[0] if spec.choices_in_words else dict(schema)


def answer_format(spec: JobSpec) -> dict[str, Json]:
    """Return the members of a request's body that ask for structure; none for plain text."""
    if spec.output.schema is None or spec.asked_by == "prompt":
        return {}
    responses = spec.endpoint == "/v1/responses"
    if spec.asked_by == "object":
        form = {"type": "json_object"}
        return {"text": {"format": form}} if responses else {"response_format": form}
    schema, strict = strict_schema(sent_schema(spec), spec.schema_form)
    if spec.asked_by == "tools":
        return _tool(schema, strict=strict, responses=responses)
    described = {"name": TOOL, "schema": schema, "strict": strict}
    if responses:
        return {"text": {"format": {"type": "json_schema", **described}}}
    return {"response_format": {"type": "json_schema", "json_schema": described}}


def _tool(schema: dict[str, Json], *, strict: bool, responses: bool) -> dict[str, Json]:
    function = {
        "name": TOOL,
        "description": "Takes the answer.",
        "parameters": schema,
        "strict": strict,
    }
    if responses:
        choice: dict[str, Json] = {"type": "function", "name": TOOL}
        return {"tools": [{"type": "function", **function}], "tool_choice": choice}
    choice = {"type": "function", "function": {"name": TOOL}}
    return {"tools": [{"type": "function", "function": function}], "tool_choice": choice}
