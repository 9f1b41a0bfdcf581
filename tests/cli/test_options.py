"""Options become what a `Job` takes, and what cannot be used is told with the option's name."""

from __future__ import annotations

import inspect
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import typer.main
from pydantic import BaseModel
from typer.testing import CliRunner

from frameenrich.accessor import LLMBatch
from frameenrich.cli.main import app
from frameenrich.cli.options import ProviderOptions
from frameenrich.cli.request_options import (
    AnswerOptions,
    Embedding,
    Images,
    PromptOptions,
    RequestOptions,
)
from frameenrich.cli.values import read_params, read_response_model, read_template, split_commas
from frameenrich.errors import InputError, OutputError, ParameterError, TemplateError
from frameenrich.verbs.job import Job


def asking(**options: Any) -> RequestOptions:
    """What is asked, of a model and a template."""
    return RequestOptions(
        PromptOptions(model="m", template="{{ a }}"), Images(), AnswerOptions(), **options
    )


def test_only_what_was_given_is_passed_on() -> None:
    """Defaults stay where they are: with `submit`."""
    assert asking().kwargs() == {
        "template": "{{ a }}",
        "model": "m",
        "endpoint": "/v1/chat/completions",
        "params": {},
    }
    assert ProviderOptions().kwargs() == {"provider": "openai"}


def test_metadata_is_given_pair_by_pair() -> None:
    """A value may hold ``=``; what is no pair, or comes twice, is told with the option's name."""
    own = ProviderOptions(metadata=["team=catalogue", "why=a=b"], completion_window="7d").kwargs()

    assert own["metadata"] == {"team": "catalogue", "why": "a=b"}
    assert own["completion_window"] == "7d"
    for pairs in (["team"], ["=x"], ["a=1", "a=2"]):
        with pytest.raises(ParameterError, match="--metadata"):
            ProviderOptions(metadata=pairs).kwargs()


def test_everything_given_arrives(tmp_path: Path) -> None:
    """Each option is the keyword argument that it is called after."""
    (tmp_path / "system.txt").write_text("Be brief.")
    prompt = PromptOptions(
        model="m",
        template_file=Path("ask.j2"),
        param=["temperature=0"],
        key=["sku", "lang"],
        on_null="skip",
    )
    images = Images(
        image=["front", "back, left"],
        image_root=tmp_path,
        image_detail="low",
        image_max_pixels="512",
        image_max_bytes=1000,
        on_bad_image="skip",
    )
    answering = AnswerOptions(labels='a,"b, c"', parser="json:loads")
    wishes = RequestOptions(
        prompt,
        images,
        answering,
        system=f"@{tmp_path / 'system.txt'}",
        logprobs=True,
        name="kind",
        prefix="p_",
    ).kwargs()

    assert wishes == {
        "template": Path("ask.j2"),
        "model": "m",
        "endpoint": "/v1/chat/completions",
        "params": {"temperature": 0},
        "system": "Be brief.",
        "image": ["front", "back, left"],
        "image_root": tmp_path,
        "image_detail": "low",
        "image_max_pixels": 512,
        "image_max_bytes": 1000,
        "on_bad_image": "skip",
        "key": ["sku", "lang"],
        "on_null": "skip",
        "labels": ["a", "b, c"],
        "parser": json.loads,
        "logprobs": True,
        "name": "kind",
        "prefix": "p_",
    }


WITHOUT_A_DOOR = {
    "client": "the environment says it: OPENAI_API_KEY, OPENAI_BASE_URL",
    "params": "--param has them one by one",
}


@pytest.mark.parametrize("verb", ["run", "submit"])
def test_every_option_of_submit_has_an_option_here(verb: str) -> None:
    """Of the same name; the few that have none are known, with the reason."""
    command: Any = typer.main.get_command(app)
    ours = {parameter.name for parameter in command.commands[verb].params}
    wanted = set(inspect.signature(LLMBatch.submit).parameters) - {"self"}

    assert wanted - ours <= set(WITHOUT_A_DOOR)
    assert {"param", "schema"} <= ours


def test_every_option_of_collect_has_an_option_here() -> None:
    """On `collect`, and what makes sense there on `run`."""
    command: Any = typer.main.get_command(app)
    wanted = set(inspect.signature(Job.collect).parameters) - {"self", "frame"}
    collects = {parameter.name for parameter in command.commands["collect"].params}
    runs = {parameter.name for parameter in command.commands["run"].params}

    assert wanted <= collects
    assert wanted - {"wait"} <= runs


def test_an_embedding_is_a_submit_with_its_endpoint() -> None:
    """``--dimensions`` is a request parameter like the others."""
    prompt = PromptOptions(model="m", template="{{ a }}", param=["user=me"])

    assert Embedding(prompt, dimensions=8).kwargs() == {
        "template": "{{ a }}",
        "model": "m",
        "params": {"user": "me", "dimensions": 8},
        "endpoint": "/v1/embeddings",
        "name": "embedding",
    }


@pytest.mark.parametrize(
    ("pair", "value"),
    [
        ("x=1", 1),
        ("x=0.5", 0.5),
        ("x=true", True),
        ('x={"a": [1]}', {"a": [1]}),
        ("x=low", "low"),
        ("x=a=b", "a=b"),
        ("x=", ""),
        ('x="1"', "1"),
    ],
)
def test_parameters_are_json_else_text(pair: str, value: Any) -> None:
    """A number is a number, a word needs no quotes."""
    assert read_params([pair]) == {"x": value}


@pytest.mark.parametrize(
    ("pair", "value"),
    [("user=123", "123"), ("user=true", "true"), ("user=[1]", "[1]"), ('user="1"', "1"),
     ("user=null", None), ("safety_identifier=0012", "0012"), ("seed=123", 123)],
)  # fmt: skip
def test_a_text_parameter_is_taken_as_typed(pair: str, value: Any) -> None:
    """A shell takes quotes away, and the API takes only texts there."""
    (found,) = read_params([pair]).values()
    assert found == value


@pytest.mark.parametrize("pair", ["temperature", "=1", ""])
def test_a_parameter_that_is_no_pair_is_refused(pair: str) -> None:
    """With the form that it should have."""
    with pytest.raises(ParameterError, match="Write --param NAME=VALUE"):
        read_params([pair])


def test_templates_come_as_text_or_from_a_file(tmp_path: Path, monkeypatch: Any) -> None:
    """``@`` reads a file; a file's bare name as a template is nobody's wish."""
    monkeypatch.chdir(tmp_path)
    Path("ask.j2").write_text("{{ a }}")

    assert read_template("{{ a }}", None) == "{{ a }}"
    assert read_template("@ask.j2", None) == Path("ask.j2")
    assert read_template(None, Path("ask.j2")) == Path("ask.j2")
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "{{ a }}"}]
    Path("ask.json").write_text(json.dumps(messages))
    assert read_template("@ask.json", None) == messages
    with pytest.raises(TemplateError, match=r"no\.json cannot be read"):
        read_template("@no.json", None)
    with pytest.raises(TemplateError, match=r"Write --template @ask\.j2 to read it"):
        read_template("ask.j2", None)
    with pytest.raises(TemplateError, match="No template was given"):
        read_template(None, None)
    with pytest.raises(TemplateError, match="Two templates were given"):
        read_template("{{ a }}", Path("ask.j2"))


def test_an_absent_system_file_is_told() -> None:
    """As an absent template is."""
    with pytest.raises(InputError, match=r"none\.txt cannot be read: No such file"):
        asking(system="@none.txt").kwargs()


def test_a_schema_comes_from_a_file(tmp_path: Path) -> None:
    """JSON as it stands; what is no JSON is told with the file."""
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    (tmp_path / "good.json").write_text(json.dumps(schema))
    (tmp_path / "bad.json").write_text("{")

    assert read_response_model(tmp_path / "good.json", None) == schema
    with pytest.raises(OutputError, match=r"bad\.json is not JSON"):
        read_response_model(tmp_path / "bad.json", None)
    with pytest.raises(OutputError, match=r"none\.json cannot be read"):
        read_response_model(tmp_path / "none.json", None)
    with pytest.raises(OutputError, match="Give one of them"):
        read_response_model(tmp_path / "good.json", "a:B")


def test_a_class_is_imported_from_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``answers:Product`` is the class `Product` of ``answers.py`` here."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    Path("my_answers.py").write_text(
        "from pydantic import BaseModel\nclass Product(BaseModel):\n    color: str\n"
    )

    found = read_response_model(None, "my_answers:Product")

    assert issubclass(found, BaseModel)
    assert list(found.model_fields) == ["color"]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("answers", "does not name a module"),
        (":A", "does not name a module"),
        ("no_such_module_here:A", "ModuleNotFoundError"),
        ("json:Absent", "AttributeError"),
    ],
)
def test_a_class_that_cannot_be_imported_is_told(name: str, says: str) -> None:
    """With Python's own reason."""
    with pytest.raises(OutputError, match=says):
        read_response_model(None, name)


def test_commas_split_but_for_quoted_ones() -> None:
    """Spaces after commas do not count."""
    assert split_commas("a, b,c ") == ["a", "b", "c"]
    assert split_commas('"a,b",c') == ["a,b", "c"]


def test_json_mode_reaches_the_request(tmp_path: Path) -> None:
    """`--json-mode` is `json_mode=`, and an unknown one is refused by name."""
    (tmp_path / "in.csv").write_text("title\nmug\n")
    ask = ["preview", str(tmp_path / "in.csv"), "-t", "{{ title }}?", "-m", "m", "--labels", "a,b"]

    shown = CliRunner().invoke(app, [*ask, "--json-mode", "prompt"])
    refused = CliRunner().invoke(app, [*ask, "--json-mode", "xml"])

    assert "valid by this JSON Schema" in shown.stdout
    assert refused.exit_code == 2
    assert "--json-mode" in refused.stderr
