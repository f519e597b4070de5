"""Names, texts and arguments that would send commands to the terminal or that name no path, given to the commands."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest
from PIL import Image
from rich.progress import track
from rich.table import Table
from rich.text import Text

from qwen3vl.cli import main
from qwen3vl.cli.console import EscapingConsole
from qwen3vl.cli.output import EscapingFormatter, command_output, one_line, print_json, printable
from qwen3vl.cli.page import QueryResult, write_page
from qwen3vl.cli.search import hit_table
from qwen3vl.documents import Document
from qwen3vl.stores import Hit

EVIL = "a\x1b[2J\x1b]0;title\x07\x9b31m\r\x7fb\u202egnp\u2066\u2028c"
ESCAPED = r"a\x1b[2J\x1b]0;title\x07\x9b31m\x0d\x7fb\u202egnp\u2066\u2028c"
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
EVIL_NAME = EVIL.replace("\x00", "") + ".png"


def test_control_characters_are_escaped_and_others_stay() -> None:
    assert printable(EVIL) == ESCAPED
    assert printable("tab\tand\nline é 数字 \U0001f600 שלום") == "tab\tand\nline é 数字 \U0001f600 שלום"
    assert printable("half \ud83d") == r"half \ud83d"
    assert one_line("a\nfailed: nothing") == r"a\x0afailed: nothing"


def test_console_escapes_texts_tables_and_markup(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table(title=EVIL)
    table.add_column(EVIL)
    table.add_row(EVIL)
    table.add_row(Text(EVIL))
    console = EscapingConsole()
    for value in (EVIL, Text(EVIL), table, [EVIL], {EVIL: EVIL}):
        console.print(value)
    console.print(EVIL, markup=False, highlight=False)
    console.log(EVIL)
    console.rule(EVIL)
    output = capsys.readouterr().out
    assert not CONTROL.search(output)
    assert output.count(r"\x1b[2J") >= 9


def test_codes_of_a_terminal_are_only_those_of_rich(monkeypatch: pytest.MonkeyPatch) -> None:
    """Colours and the progress line still work where the output is a terminal."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    console = EscapingConsole()
    console.file = StringIO()
    console.print("[red]error:[/red]", EVIL)
    for _ in track([1, 2], EVIL, console=console):
        pass
    output = console.file.getvalue()
    assert "\x1b[31merror:" in output
    assert r"\x1b[2J" in output
    # Colours, movements of the cursor and erased lines are the codes of rich.
    rest = re.sub(r"\x1b\[(?:[\d;]*m|\?25[lh]|\d?[AK])|\r", "", output)
    assert not CONTROL.search(rest)


def test_hits_are_printed_and_written_without_control_characters(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = Document(f"/tmp/{EVIL}", "text", text=f"text {EVIL}\nand more", metadata={"key": EVIL})
    hits = [Hit(id="1", score=0.5, document=document)]
    with command_output(as_json=False, verbose=False) as console:
        console.print(hit_table(hits))
    output = capsys.readouterr().out
    assert not CONTROL.search(output)
    assert r"text" in output
    page = tmp_path / "page.html"
    write_page(page, EVIL, [QueryResult({"text": f"{EVIL} \ud83d"}, hits, EVIL)], EVIL)
    html = page.read_text(encoding="utf-8")
    assert not CONTROL.search(html)
    assert ESCAPED in html
    assert r"\ud83d" in html


def test_json_has_no_control_characters_and_the_same_values(capsys: pytest.CaptureFixture[str]) -> None:
    value = {EVIL: [EVIL, "half \ud83d", "é 数字\n\t"]}
    print_json(value)
    output = capsys.readouterr().out
    assert not CONTROL.search(output)
    output.encode()
    assert json.loads(output) == value


def test_errors_log_messages_and_warnings_are_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    import typer

    stream = StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(EscapingFormatter("%(levelname)s %(message)s"))
    logger = logging.getLogger("tests.hostile")
    logger.addHandler(handler)
    try:
        raise ValueError(EVIL)
    except ValueError:
        logger.exception("cannot load %s", f"{EVIL}\nERROR forged")
    logger.removeHandler(handler)
    output = stream.getvalue()
    assert not CONTROL.search(output)
    assert output.startswith(rf"ERROR cannot load {ESCAPED}\x0aERROR forged" + "\nTraceback")
    with pytest.raises(typer.Exit), command_output(as_json=False, verbose=False):
        raise ValueError(EVIL)
    output = capsys.readouterr().out
    assert "error:" in output
    assert not CONTROL.search(output)


@pytest.mark.parametrize(
    "arguments", [["search", "x", "--store", "s", EVIL], [f"--{EVIL}"], [EVIL], ["index", f"--{EVIL}"]]
)
def test_usage_errors_are_escaped(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert r"\x1b" in captured.err
    assert not CONTROL.search(captured.out + captured.err)


def run(*arguments: str, code: str = "from qwen3vl.cli.process import run; run()") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], check=False, capture_output=True, text=True, encoding="utf-8"
    )


def test_traceback_of_an_unexpected_error_is_escaped() -> None:
    code = f"""
import qwen3vl.cli.app as app
@app.app.command()
def fail(): raise ZeroDivisionError({EVIL!r})
from qwen3vl.cli.process import run; run()
"""
    result = run("fail", code=code)
    assert result.returncode == 1
    assert f"ZeroDivisionError: {ESCAPED}" in result.stderr
    assert not CONTROL.search(result.stderr)


def test_warning_is_escaped() -> None:
    code = f"""
import warnings
from qwen3vl.cli.output import command_output
with command_output(as_json=False, verbose=False): warnings.warn({EVIL!r})
"""
    result = run(code=code)
    assert ESCAPED in result.stderr
    assert not CONTROL.search(result.stderr)


OUTPUT = """
import sys
from qwen3vl.cli.app import main
from qwen3vl.cli.output import command_output, print_json
if sys.argv[1] == "error":
    sys.exit(main(["search", "x", "--store", "none/数字 é \U0001f600", *sys.argv[2:]]))
import typer
try:
    with command_output(as_json="--json" in sys.argv, verbose=False) as console:
        (print_json if "--json" in sys.argv else console.print)(["数字 é \U0001f600"])
except typer.Exit as stop:
    sys.exit(stop.exit_code)
"""
"""Prints a result or an error with characters that few encodings have."""


@pytest.mark.parametrize(("what", "code"), [("result", 0), ("error", 2)])
@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8"])
def test_characters_that_the_output_cannot_encode_are_escaped(what: str, code: int, encoding: str) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "COLUMNS": "200"}
    arguments = [sys.executable, "-c", OUTPUT, what]
    result = subprocess.run([*arguments, "--json"], capture_output=True, check=False, env=environment)
    assert (result.returncode, result.stderr) == (code, b"")
    assert "数字 é \U0001f600" in str(json.loads(result.stdout.decode(encoding)))
    result = subprocess.run(arguments, capture_output=True, check=False, env=environment)
    assert (result.returncode, result.stderr) == (code, b"")
    printed = result.stdout.decode(encoding)
    assert ("数字" if encoding == "utf-8" else r"\u6570\u5b57") in printed


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("options", [[], ["--json"]])
@pytest.mark.parametrize("what", ["result", "error"])
def test_output_that_cannot_be_written_is_one_line_on_standard_error(what: str, options: list[str]) -> None:
    arguments = [sys.executable, "-c", OUTPUT, what, *options]
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(arguments, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr.startswith("error: standard output cannot be written: [Errno 28] No space left on device")
    assert result.stderr.count("\n") == 1
    assert ("there is no store at" in result.stderr) is (what == "error")


@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")
@pytest.mark.parametrize(("what", "options"), [("result", ["--json"]), ("error", ["--json"]), ("error", [])])
def test_output_that_is_closed_is_one_line_on_standard_error(what: str, options: list[str]) -> None:
    arguments = ["sh", "-c", 'exec "$@" >&-', "sh", sys.executable, "-c", OUTPUT, what, *options]
    result = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr.startswith("error: standard output cannot be written: [Errno 9] it is closed")
    assert result.stderr.count("\n") == 1
    assert ("there is no store at" in result.stderr) is (what == "error")


@pytest.mark.parametrize("options", [[], ["--json"]])
@pytest.mark.parametrize("what", ["result", "error"])
def test_a_reader_that_has_enough_is_no_error(what: str, options: list[str]) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", OUTPUT, what, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    assert process.wait() == 1
    process.stderr.close()


def test_index_of_a_hostile_folder_prints_no_control_characters(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A failed file, a skipped suffix, a log message and the progress line have the name or a part of it."""
    folder = tmp_path / "library"
    folder.mkdir()
    Image.new("RGB", (64, 48), "red").save(folder / f"good {EVIL}.png")
    (folder / f"bad {EVIL}\nfailed 0.png").write_bytes(b"no image")
    (folder / f"name.{EVIL}").write_bytes(b"?")
    (folder / "text.txt").write_text(f"text {EVIL}")
    (folder / f"link {EVIL}").symlink_to(folder)
    arguments = ("index", str(folder), "--store", str(tmp_path / "store"), "--model", "tiny", "--verbose")
    result = run(*arguments)
    assert result.returncode == 1
    assert not CONTROL.search(result.stdout + result.stderr)
    assert r"\x1b" in result.stdout
    assert not re.search(r"^\W*failed 0", result.stdout, re.MULTILINE)
    result = run(*arguments, "--json")
    assert not CONTROL.search(result.stdout + result.stderr)
    summary = json.loads(result.stdout)
    assert [failure["source"] for failure in summary["failed"]] == [str(folder / f"bad {EVIL}\nfailed 0.png")]
    page = tmp_path / "hits.html"
    assert main(["search", EVIL, "--store", str(tmp_path / "store"), "--html", str(page)]) == 0
    out, err = capfd.readouterr()
    assert not CONTROL.search(out + err)
    assert not CONTROL.search(page.read_text(encoding="utf-8"))


def test_unknown_user_in_a_path_is_an_error_without_traceback(tmp_path: Path) -> None:
    store = str(tmp_path / "store")
    result = run("index", "~nosuchuser/x", "--store", store, "--model", "tiny")
    assert result.returncode == 1
    assert "no such file or folder" in re.sub(r"\W*\n\W*", " ", result.stdout)
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["index", "x", "--store", "~nosuchuser/x"],
        ["index", "x", "--store", "chroma:~nosuchuser/x"],
        ["index", "x", "--store", "s", "--model", "~nosuchuser/x"],
        ["search", "x", "--store", "s", "--image", "~nosuchuser/x.png"],
        ["search", "x", "--store", "s", "--html", "~nosuchuser/x.html"],
        ["search", "x", "--store", "s", "--reranker", "~nosuchuser/x"],
        ["demo", "--out", "~nosuchuser/x"],
    ],
    ids=" ".join,
)
def test_unknown_user_in_an_option_is_a_usage_error(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert "there is no such user" in capsys.readouterr().err.replace("\n", " ")


def test_home_folder_in_an_option_is_expanded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert main(["search", "x", "--store", "~/none"]) == 2
    assert str(tmp_path / "none") in re.sub(r"\n", "", capsys.readouterr().out)


def test_hits_with_foreign_metadata_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """Metadata of others may have anything where this package's loaders write numbers."""
    documents = [
        Document("a.mp4", "clip", video="a.mp4", metadata={"start": "early", "end": None}),
        Document("b.mp4", "clip", locator="t=oops", video="b.mp4"),
        Document("c.mp4", "clip", locator="t=0,90", video="c.mp4"),
        Document("d.txt", "text", text="d", metadata={"first_line": 1}),
        Document("e.pdf", "page", metadata={"page": {}}),
    ]
    with command_output(as_json=False, verbose=False) as console:
        console.print(hit_table([Hit(id="1", score=0.5, document=document) for document in documents]))
    assert "0:00 to 1:30" in capsys.readouterr().out
