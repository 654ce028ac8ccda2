"""Documents: keys know their lines, whatever TOML spelling was used, and all faults come at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from natfix.document import MAX_SIZE, Document, Form, Keys, document_from_file
from natfix.errors import ConfigError
from natfix.expect import one_of, whole_number

SPELLINGS = '''\
# a comment
first = 1
dotted.inner.key = 2

text = """
[not.a.table]
first = 5
"""
list = [
  1,   # comment with ] in it
  2,
]
"quoted key" = 3
inline = { one = 1, two = { three = 3 } }
[table]   # comment
key = 1
[table.inner]
key = 2
[[array]]
key = 3
[[array]]
key = "\\n"
[array.below]
key = 4
'''

LINES: list[tuple[Keys, int]] = [
    (("first",), 2),
    (("dotted", "inner", "key"), 3),
    (("text",), 5),
    (("list",), 9),
    (("quoted key",), 13),
    (("inline",), 14),
    (("inline", "two", "three"), 14),
    (("table",), 15),
    (("table", "key"), 16),
    (("table", "inner", "key"), 18),
    (("array",), 19),
    (("array", 0), 19),
    (("array", 0, "key"), 20),
    (("array", 1), 21),
    (("array", 1, "key"), 22),
    (("table", "absent"), 15),
    (("absent",), 1),
]

FORM = Form({"colour": one_of("red", "green"), "size": whole_number(1, 9, "metres")},
            required=frozenset({"size"}), tables=("shape",), homes={"corners": "[shape]"})


@pytest.mark.parametrize(("keys", "line"), LINES)
def test_line_of(keys: Keys, line: int) -> None:
    """Every key is found at the line where its statement begins."""
    assert Document(SPELLINGS, "x").line_of(keys) == line


def test_crlf_does_not_shift_lines() -> None:
    """A file from Windows has the same line numbers."""
    assert Document(SPELLINGS.replace("\n", "\r\n"), "x").line_of(("array", 1, "key")) == 22


@pytest.mark.parametrize(("text", "message"), [
    ("a = 1\nb = = 2\n", r"^x:2: not TOML: .*column 5"),
    ("a = 1\na = 2\n", r"^x:2: not TOML: Cannot overwrite"),
    ("a = [\n1,\n", r"^x: not TOML: .*end of the file"),
    ("a = " + "[" * 5000, r"^x:?.*nest too deep"),
])
def test_broken_text_is_refused_with_its_line(text: str, message: str) -> None:
    """What is no TOML is refused with file and line."""
    with pytest.raises(ConfigError, match=message):
        Document(text, "x")


def test_all_problems_at_once() -> None:
    """Every fault of a table is reported, in the order of the text."""
    document = Document('colour = "gren"\ncolor = "red"\ncorners = 3\n[shap]\n', "x.toml")
    document.read_table((), FORM)
    with pytest.raises(ConfigError) as caught:
        document.refuse_if_wrong()
    assert str(caught.value).splitlines() == [
        'x.toml:1: colour = "gren" must be "red" or "green"; did you mean "green"?',
        'x.toml:1: the top level lacks "size": a whole number of metres from 1 to 9',
        'x.toml:2: unknown key "color" in the top level; did you mean "colour"?',
        'x.toml:3: unknown key "corners" in the top level; it belongs in [shape]',
        'x.toml:4: unknown table "shap"; did you mean "shape"?',
    ]


def test_good_values_are_read() -> None:
    """A faultless table gives its values and no complaint."""
    document = Document('size = 3\n[shape]\n', "x")
    assert document.read_table((), FORM) == {"size": 3}
    document.refuse_if_wrong()


def test_absent_file() -> None:
    """A file that is not there is an error that names it."""
    with pytest.raises(ConfigError, match=r"/nowhere/x.toml: there is no such quirks file"):
        document_from_file("/nowhere/x.toml", "quirks file")


def test_directory_is_no_file(tmp_path: Path) -> None:
    """A directory in a file's place is an error, not a crash."""
    with pytest.raises(ConfigError, match="Is a directory"):
        document_from_file(tmp_path, "configuration file")


def test_file_that_is_no_text(tmp_path: Path) -> None:
    """Bytes that are not UTF-8 are refused with their line."""
    path = tmp_path / "x.toml"
    path.write_bytes(b"a = 1\nb = '\xff'\n")
    with pytest.raises(ConfigError, match=r"x.toml:2: not UTF-8 text \(byte 0xff\)"):
        document_from_file(path, "configuration file")


def test_huge_file_is_refused(tmp_path: Path) -> None:
    """A file far too big is refused unread by the parser."""
    path = tmp_path / "x.toml"
    path.write_bytes(b"#" * (MAX_SIZE + 1))
    with pytest.raises(ConfigError, match="is a mistake"):
        document_from_file(path, "configuration file")


def test_byte_order_mark_is_tolerated(tmp_path: Path) -> None:
    """A file saved by a Windows editor is read."""
    path = tmp_path / "x.toml"
    path.write_bytes(b"\xef\xbb\xbfa = 1\r\n")
    assert document_from_file(path, "configuration file").data == {"a": 1}
