"""Validation of the models file."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from shared.errors import NotFound, SettingsError
from shared.models.catalogue import ECHO, EMBED, Catalogue, load_catalogue
from testing.repository import REPOSITORY

TINY = {"name": "tiny", "url": "TinyLlama/TinyLlama-1.1B-Chat-v1.0"}


ON_SERVER = {"url": "http://host:8000/v1", "engine": "openai"}


def load(tmp_path: Path, content: Any, engine: str = "") -> Catalogue:
    path = tmp_path / "models.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return load_catalogue(path, engine=engine)


def problems(tmp_path: Path, content: Any) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load(tmp_path, content)
    return caught.value.problems


def test_a_name_and_a_url_are_enough(tmp_path: Path) -> None:
    catalogue = load(tmp_path, [TINY])
    assert catalogue.default().name == "tiny"
    assert catalogue.default().max_tokens > 0


def test_the_default_for_each_task_is_marked_or_first(tmp_path: Path) -> None:
    embed = {**TINY, "name": "vectors", "task": EMBED}
    catalogue = load(tmp_path, [embed, TINY, {**TINY, "name": "chosen", "default": True}])
    assert catalogue.default().name == "chosen"
    assert catalogue.embedding().name == "vectors"


def test_an_unknown_model_error_lists_the_known_names(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="tiny") as caught:
        load(tmp_path, [TINY]).get_model("huge")
    assert caught.value.code == "model_not_found"


def test_asking_for_a_missing_embedding_model_fails(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="embed"):
        load(tmp_path, [TINY]).embedding()


def test_engine_override_skips_the_embedding_model(tmp_path: Path) -> None:
    catalogue = load(tmp_path, [TINY, {**TINY, "name": "vectors", "task": EMBED}], engine=ECHO)
    assert [model.engine for model in catalogue.models] == [ECHO, "transformers"]


def test_a_relative_folder_is_relative_to_the_models_file(tmp_path: Path) -> None:
    assert load(tmp_path, [{**TINY, "url": "./weights"}]).default().url == str(tmp_path / "weights")


def test_invalid_json_reports_line_and_column(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, '[\n  {"name": "a" "url": "b"}\n]')
    assert "line 2, column 16" in problem


@pytest.mark.parametrize("content", [{}, [], "null", 3])
def test_the_file_must_be_a_list_of_models(tmp_path: Path, content: Any) -> None:
    (problem,) = problems(tmp_path, content)
    assert "list" in problem


def test_a_missing_file_is_named_in_the_error(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"nowhere\.json"):
        load_catalogue(tmp_path / "nowhere.json")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"max_contxt": 5}, "max_contxt is not a field"),
        ({"name": "../up"}, "must be 1 to 100 letters"),
        ({"url": ""}, 'url is "": it must not be empty'),
        ({"url": None}, "url is null: it must be a string"),
        ({"task": "paint"}, "must be one of generate, embed"),
        ({"engine": "onnx"}, "must be one of transformers, vllm, openai, echo"),
        ({"url": "http://host/v1"}, "only the engine openai uses a server"),
        ({"remote_model": "x"}, "remote_model is set and engine is transformers"),
        ({"engine": "openai"}, "it is the base URL of a server"),
        ({**ON_SERVER, "url": "http://me:key@host/v1"}, "belongs into api_key_env or api_key_file"),
        ({**ON_SERVER, "api_key_env": "A", "api_key_file": "b"}, "both set"),
        ({**ON_SERVER, "api_key_env": "sk-1234"}, "must be the name of an environment variable"),
        ({**ON_SERVER, "gpus": 1}, "gpus is set and engine is openai"),
        ({**ON_SERVER, "chat_template": "x"}, "chat_template is set and engine is openai"),
        ({**ON_SERVER, "server": "ollama"}, "must be one of generic, openai, vllm"),
        ({**ON_SERVER, "task": "embed"}, "generates text only"),
        ({"max_context": 0}, "max_context is 0: it must be between 16 and 10,000,000"),
        ({"max_in_flight": "8"}, "must be a whole number"),
        ({"max_in_flight": True}, "must be a whole number"),
        ({"stop": [""]}, "strings that are not empty"),
        ({"stop": "END"}, "must be a list of at most 16 strings"),
        ({"gpus": 17}, "must be between 0 and 16"),
        ({"replicas": 0}, "must be between 1 and 64"),
        ({"devices": []}, "a list of different GPU numbers"),
        ({"devices": [1, 1]}, "a list of different GPU numbers"),
        ({"devices": [0, 1, 2], "gpus": 2}, "not a multiple of the 2 per replica"),
        ({"devices": [0, 1], "replicas": 3}, "replicas and gpus need 3 times 1"),
        ({"gpu_share": 1.5}, "must be between 0.05 and 1"),
        ({"gpu_share": 0.5, "gpus": 2}, "uses each of them whole"),
        ({"keep_alive": "5m"}, "must be a number"),
        ({"load": "yes"}, "must be true or false"),
        ({"default": 1}, "must be true or false"),
    ],
)
def test_an_invalid_field_is_reported_with_its_value_and_limit(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    (problem,) = problems(tmp_path, [{**TINY, **change}])
    assert words in problem
    assert "model 1" in problem


@pytest.mark.parametrize("revision", [None, "main", "v1.0", "0123456789abcdef", "0123456789ABCDEF" * 2 + "01234567"])
def test_code_of_the_hub_needs_a_commit(tmp_path: Path, revision: str | None) -> None:
    [problem] = problems(tmp_path, [{**TINY, "trust_remote_code": True} | ({"revision": revision} if revision else {})])
    assert "model 1 (tiny): revision is " in problem
    assert "trust_remote_code is true: set revision to the commit" in problem


@pytest.mark.parametrize("entry", [{"url": TINY["url"], "revision": "0123456789" * 4}, {"url": "/srv/m"}, {"url": "package:m"}])
def test_pinned_and_local_code_may_be_trusted(tmp_path: Path, entry: dict[str, str]) -> None:
    assert load(tmp_path, [{"name": "m", "trust_remote_code": True, **entry}]).default().is_pinned_to_commit


def test_only_embedding_models_have_prefixes(tmp_path: Path) -> None:
    assert (
        load(tmp_path, [{**TINY, "task": EMBED, "query_prefix": "query: ", "passage_prefix": ""}]).models[0].query_prefix
        == "query: "
    )
    [problem] = problems(tmp_path, [{**TINY, "passage_prefix": "passage: "}])
    assert problem.endswith("passage_prefix is set and task is generate: only a model with task embed uses it")
    [problem] = problems(tmp_path, [{**TINY, "task": EMBED, "query_prefix": "x" * 2001}])
    assert problem.endswith("it must have at most 2,000 characters")


def test_all_problems_are_reported_at_once(tmp_path: Path) -> None:
    found = problems(
        tmp_path, [{"name": "a", "colour": 1}, 7, TINY, {**TINY, "default": True}, {**TINY, "name": "b", "default": True}]
    )
    assert len(found) == 5
    for words in (
        "colour is not a field",
        "url is missing",
        "must be an object",
        "the name tiny is used by 2",
        "tiny and b are both",
    ):
        assert any(words in problem for problem in found), words


def test_the_packaged_models_file_works_without_a_download() -> None:
    catalogue = load_catalogue(REPOSITORY / "models.json")
    assert catalogue.default().url.startswith("package:")
    assert catalogue.embedding().url.startswith("package:")
    for name in ("tinyllama", "qwen", "llama", "granite", "mistral"):
        assert any(name in model.name for model in catalogue.models), name


def test_the_echo_engine_may_stand_for_a_server_but_not_another_engine(tmp_path: Path) -> None:
    models = [TINY, {"name": "far", **ON_SERVER}]
    assert [model.engine for model in load(tmp_path, models, engine="transformers").models] == ["transformers", "openai"]
    assert [model.engine for model in load(tmp_path, models, engine=ECHO).models] == [ECHO, ECHO]


ADAPTED = {**TINY, "engine": "vllm", "adapters": {"sql": "./sql", "legal": "org/legal@v2"}}


def test_an_adapter_is_requested_with_its_model(tmp_path: Path) -> None:
    catalogue = load(tmp_path, [ADAPTED])
    requested = catalogue.find_requested("tiny:sql")
    assert (requested.entry.name, requested.adapter, requested.name) == ("tiny", "sql", "tiny:sql")
    assert requested.entry.adapters == {"sql": str(tmp_path / "sql"), "legal": "org/legal@v2"}
    assert catalogue.find_requested("tiny").name == "tiny"


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ({**ADAPTED, "engine": "transformers"}, "adapters is set and engine is transformers: only the engine vllm uses it"),
        ({**ADAPTED, "adapters": {"a:b": "org/x"}}, "adapters is .* must be an object of names"),
        ({**ADAPTED, "adapters": {"a": ""}}, "adapters is .* must be an object of names"),
        ({**ADAPTED, "adapters": ["org/x"]}, "adapters is .* must be an object of names"),
        ({**ADAPTED, "engine_args": {"enable_lora": True}}, "engine_args has enable_lora: set adapters of the entry instead"),
    ],
)
def test_a_wrong_adapter_is_a_problem_of_its_entry(tmp_path: Path, entry: dict[str, Any], problem: str) -> None:
    [found] = problems(tmp_path, [entry])
    assert re.search(problem, found), found
