"""Logs: their forms, and what never reaches them."""

import io
import json
from collections.abc import Iterator

import pytest
import structlog

from jobmaster.telemetry.logging import HIDDEN, configure_logging, hide_secrets, redact


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    yield
    structlog.reset_defaults()


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("postgresql://app:s3cret@db/jobs", f"postgresql://{HIDDEN}@db/jobs"),
        ("can't reach mysql+aiomysql://root@h:3306/x now", f"can't reach mysql+aiomysql://{HIDDEN}@h:3306/x now"),
        ("nats://t0ken@host:4222", f"nats://{HIDDEN}@host:4222"),
        ("host=db password=hunter2 user=me", f"host=db password={HIDDEN} user=me"),
        ("?api_key=abc&x=1", f"?api_key={HIDDEN}&x=1"),
        ("sqlite:///jobs.db", "sqlite:///jobs.db"),
        ("mail me@example.com", "mail me@example.com"),
    ],
)
def test_urls_and_parameters_lose_their_secrets(text: str, clean: str) -> None:
    assert redact(text) == clean


def test_values_under_secret_names_are_hidden_at_any_depth_but_fencing_tokens_stay() -> None:
    event = hide_secrets(
        None,
        "info",
        {
            "event": "x",
            "token": 4294967297,
            "auth_token": "abc",
            "options": {"Password": "p", "inner": [{"dsn": "d"}], "port": 1},
            "error": ValueError("postgres://a:b@h"),
        },
    )
    assert event["token"] == 4294967297
    assert event["auth_token"] == HIDDEN
    assert event["options"] == {"Password": HIDDEN, "inner": [{"dsn": HIDDEN}], "port": 1}
    assert event["error"] == f"ValueError: postgres://{HIDDEN}@h"


def test_a_secret_string_under_an_own_name_is_hidden_all_the_same() -> None:
    assert hide_secrets(None, "info", {"token": "bearer abc"}) == {"token": HIDDEN}


def test_json_lines_carry_level_time_and_a_cleaned_traceback() -> None:
    stream = io.StringIO()
    configure_logging("json", "info", stream)
    log = structlog.get_logger()
    log.debug("quiet")
    try:
        raise OSError("cannot reach postgres://app:s3cret@db")
    except OSError:
        log.exception("loop.failed", duty="syncer")
    (line,) = stream.getvalue().splitlines()
    entry = json.loads(line)
    assert (entry["event"], entry["level"], entry["duty"]) == ("loop.failed", "error", "syncer")
    assert entry["timestamp"].endswith("Z")
    assert "Traceback" in entry["exception"]
    assert "s3cret" not in line


def test_without_a_terminal_auto_is_json_and_console_is_text() -> None:
    for form, is_json in (("auto", True), ("console", False)):
        stream = io.StringIO()
        configure_logging(form, "info", stream)  # type: ignore[arg-type]  # the loop widens the literals
        structlog.get_logger().info("started", workers=1)
        assert stream.getvalue().startswith("{") is is_json
        structlog.reset_defaults()


@pytest.mark.parametrize("error", [BrokenPipeError(), ValueError("I/O operation on closed file")])
def test_a_line_that_nobody_can_read_is_dropped(error: Exception) -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise error

    configure_logging(stream=Gone())

    structlog.get_logger().info("started")
