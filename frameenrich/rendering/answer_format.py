"""Ask for a structured answer in a request's body: by a schema, a tool or a JSON object.

Where a server takes no schema, the messages already describe the structure in words
(`frameenrich.prepare.json_modes`).
"""

from __future__ import annotations

from frameenrich.model import JobSpec, Json
from frameenrich.rendering.large_choices import without_large_choices
from frameenrich.rendering.strict_schema import strict_schema

TOOL = "answer"
"""The name of the tool that the model has to call, and of the schema."""


def sent_schema(spec: JobSpec) -> dict[str, Json]:
    """Return the schema to send, before `strict_schema` rewrites it."""
    schema = spec.output.schema or {}
    return without_large_choices(schema)[0] if spec.choices_in_words else dict(schema)


def answer_format(spec: JobSpec) -> dict[str, Json]:
    """Return the members of a request's body that ask for structure; none for plain text."""
    # With "prompt" the system message holds the schema (`json_modes.words_of`), so add nothing.
    if spec.output.schema is None or spec.asked_by == "prompt":
        return {}
    responses = spec.endpoint == "/v1/responses"
    if spec.asked_by == "object":
        form = {"type": "json_object"}
        return {"text": {"format": form}} if responses else {"response_format": form}
    schema, strict = strict_schema(sent_schema(spec), spec.schema_form)
    if spec.asked_by == "tools":
        return _tool(schema, strict=strict, responses=responses)
    # Responses takes these members flat; chat completions want them under "json_schema".
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
    # As with schemas: flat for responses, under "function" for chat completions. Naming the tool in
    # `tool_choice` forces the call; without it a model may answer in prose.
    if responses:
        choice: dict[str, Json] = {"type": "function", "name": TOOL}
        return {"tools": [{"type": "function", **function}], "tool_choice": choice}
    choice = {"type": "function", "function": {"name": TOOL}}
    return {"tools": [{"type": "function", "function": function}], "tool_choice": choice}
