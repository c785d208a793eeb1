"""Where settings come from, and which of them wins."""

from __future__ import annotations

import logging
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from llmops_sdk.errors import UsageError
from llmops_sdk.settings import Settings, find_home, load_settings, make_folder, set_settings, trusted_owner


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "pyproject.toml").write_text(
        '[tool.llmops]\nsample = 0.5\nproject = "from-file"\nfirst_party = ["mine"]\n', encoding="utf-8"
    )
    return tmp_path


def test_arguments_win_over_variables_over_the_file(project: Path) -> None:
    """Whoever is nearer to the running program decides."""
    assert load_settings({}, project).project == "from-file"
    assert load_settings({"LLMOPS_PROJECT": "from-variable"}, project).project == "from-variable"
    assert load_settings({"LLMOPS_PROJECT": "from-variable"}, project, project="given").project == "given"
    assert load_settings({}, project).sample == 0.5


def test_the_file_is_found_from_a_folder_below(project: Path) -> None:
    """A program started in a subfolder belongs to the same project."""
    inner = project / "src" / "app"
    inner.mkdir(parents=True)
    assert load_settings({}, inner).project == "from-file"


def test_the_files_first_party_is_left_to_prompt_versions(project: Path) -> None:
    """The folder that we are in may be another project than the prompt's, whose own file counts."""
    assert load_settings({}, project).first_party == ()
    assert load_settings({"LLMOPS_FIRST_PARTY": "theirs"}, project).first_party == ("theirs",)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("STORE", "0", False),
        ("STORE", "true", True),
        ("DISABLED", "on", True),
        ("SAMPLE", "0.25", 0.25),
        ("QUEUE_BYTES", "1000", 1000),
        ("FIRST_PARTY", "a, b", ("a", "b")),
        ("HOME", "/somewhere", Path("/somewhere")),
        ("CAPTURE", "SPAN_AND_EVENT", "span_and_event"),
    ],
)
def test_variables_become_values_of_their_type(name: str, text: str, value: object, tmp_path: Path) -> None:
    """`LLMOPS_<NAME>` for every setting."""
    assert getattr(load_settings({f"LLMOPS_{name}": text}, tmp_path), name.lower()) == value


@pytest.mark.parametrize(
    ("word", "capture"),
    [
        ("true", "span"),
        ("SPAN_ONLY", "span"),
        ("EVENT_ONLY", "event"),
        ("SPAN_AND_EVENT", "span_and_event"),
        ("false", "local"),
    ],
)
def test_opentelemetrys_own_variable_allows_content_out(word: str, capture: str, tmp_path: Path) -> None:
    """The standard's spelling is understood."""
    name = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
    assert load_settings({name: word}, tmp_path).capture == capture


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"colour": "red"}, "There is no setting 'colour'"),
        ({"sample": 2}, "sample must be between 0 and 1; it is 2.0"),
        ({"sample": "much"}, "sample must be a number; it is 'much'"),
        ({"store": "perhaps"}, "store must be true or false; it is 'perhaps'"),
        ({"on_full": "explode"}, "on_full must be one of drop, block"),
        ({"queue_bytes": 0}, "queue_bytes must be positive"),
        ({"otlp": "localhost:4318"}, "otlp is an address such as http://localhost:4318; it is 'localhost:4318'"),
        ({"redact": "("}, "redact='(' is neither a regular expression nor a function"),
        ({"redact": [3]}, "redact=3 is neither"),
    ],
)
def test_a_wrong_setting_is_refused_with_its_value(given: dict[str, object], told: str, tmp_path: Path) -> None:
    """The message has the name, the value, and what it may be."""
    with pytest.raises(UsageError) as refused:
        load_settings({}, tmp_path, **given)
    assert told in str(refused.value)


def test_a_pyproject_that_does_not_parse_is_said_and_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A broken file of the user's must not stop the program that is decorated."""
    (tmp_path / "pyproject.toml").write_text("[tool.llmops\n", encoding="utf-8")
    with caplog.at_level(logging.WARNING, "llmops_sdk"):
        assert load_settings({}, tmp_path).sample == 1.0
    assert "pyproject.toml cannot be read" in caplog.text


def test_the_home_is_beside_the_nearest_mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`.llmops`, `pyproject.toml` or `.git`, whichever is nearest above; else the working directory."""
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    monkeypatch.chdir(inner)
    (tmp_path / "a" / ".git").mkdir()
    assert find_home(Settings()) == tmp_path / "a" / ".llmops"
    (inner / ".llmops").mkdir()
    assert find_home(Settings()) == inner / ".llmops"
    assert find_home(Settings(home=tmp_path / "x")) == tmp_path / "x"


def test_one_pattern_to_redact_may_have_commas(tmp_path: Path) -> None:
    """A str is a pattern, not a list of them: split at its comma, nothing would be redacted."""
    assert load_settings({}, tmp_path, redact=r"\d{4,8}").redact == (r"\d{4,8}",)
    assert load_settings({"LLMOPS_REDACT": r"\d{4,8}"}, tmp_path).redact == (r"\d{4,8}",)


def test_an_empty_variable_is_no_setting_of_a_path(tmp_path: Path) -> None:
    """`LLMOPS_HOME=` must not put the store into the working folder."""
    assert load_settings({"LLMOPS_HOME": "", "LLMOPS_OTLP": ""}, tmp_path).home is None
    assert load_settings({}, tmp_path, home="").home is None
    assert load_settings({"LLMOPS_OTLP": ""}, tmp_path).otlp is None


def test_the_address_of_a_collector_may_be_given_with_its_path(tmp_path: Path) -> None:
    """As backends write it in their own pages."""
    for address in ("http://c:4318", "http://c:4318/", "http://c:4318/v1/traces"):
        assert load_settings({}, tmp_path, otlp=address).otlp == "http://c:4318"


def test_another_users_file_says_nothing() -> None:
    """In a shared folder anybody could else redirect what is asked and answered."""
    assert trusted_owner(owner=1000, user=1000)
    assert trusted_owner(owner=0, user=1000)
    assert trusted_owner(owner=1000, user=0)
    assert not trusted_owner(owner=1001, user=1000)


def test_a_table_that_is_none_is_refused(tmp_path: Path) -> None:
    """`llmops = 3` is a slip; any other `tool` is none of our business."""
    (tmp_path / "pyproject.toml").write_text("tool = 3\n", encoding="utf-8")
    assert load_settings({}, tmp_path).sample == 1.0
    (tmp_path / "pyproject.toml").write_text("[tool]\nllmops = 3\n", encoding="utf-8")
    with pytest.raises(UsageError, match="is a table of settings; it is 3"):
        load_settings({}, tmp_path)


def test_folders_of_the_home_are_private_and_the_home_is_out_of_git(tmp_path: Path) -> None:
    """Whichever room is the first to write: store, cache or index."""
    home = tmp_path / "project" / ".llmops"
    set_settings(Settings(home=home))
    make_folder(home / "indexes" / "docs")
    modes = {place: stat.S_IMODE(place.stat().st_mode) for place in (home, home / "indexes", home / "indexes" / "docs")}
    assert set(modes.values()) == {0o700}
    assert (home / ".gitignore").read_text(encoding="utf-8") == "*\n"
    assert not (tmp_path / "project" / ".gitignore").exists()


def test_a_working_folder_that_is_gone_is_told(tmp_path: Path) -> None:
    """Not as a traceback of pathlib."""
    gone = tmp_path / "gone"
    command = Path(sys.executable).with_name("llmops")
    environment = {name: value for name, value in os.environ.items() if name != "LLMOPS_HOME"}
    ended = subprocess.run(
        ["/bin/sh", "-c", f"mkdir gone && cd gone && rmdir ../gone && exec '{command}' traces list"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert not gone.exists()
    assert ended.returncode == 2
    assert ended.stderr.startswith("llmops: The working folder does not exist any more.")
