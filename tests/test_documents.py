import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsolbench import documents
from wsolbench.documents import Document, parse, read, scalar
from wsolbench.errors import InputError

HERE = Path("sweeps/x.yaml")

PLAIN_TEXT = st.text(st.characters(blacklist_categories=["Cs"]), max_size=40)
PLAIN_DATA = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | PLAIN_TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(PLAIN_TEXT, inner, max_size=4),
    max_leaves=12,
)


def data(text: str) -> Any:
    return parse(text, HERE).data


def refusal(text: str) -> str:
    with pytest.raises(InputError) as refused:
        parse(text, HERE)
    return str(refused.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 0.0001),
        ("1.0e-4", 0.0001),
        (".75", 0.75),
        ("1.", 1.0),
        ("-.5E+1", -5.0),
        ("1e-07", 1e-7),
    ],
)
def test_floats_of_yaml_1_2_are_floats(text: str, value: float) -> None:
    read_value = data(f"a: {text}")

    assert read_value == {"a": value}
    assert isinstance(read_value["a"], float)


@pytest.mark.parametrize(
    ("text", "value"), [("7", 7), ("-7", -7), ("+7", 7), ("010", 10), ("0o17", 15), ("0x1F", 31), ("0", 0)]
)
def test_integers_are_decimal_unless_their_base_is_written(text: str, value: int) -> None:
    read_value = data(f"a: {text}")

    assert read_value == {"a": value}
    assert type(read_value["a"]) is int


@pytest.mark.parametrize(
    "text", ["no", "yes", "on", "off", "y", "12:00:00", "1_000", "2024-01-01", "0b1", "1.2.3", "="]
)
def test_what_only_yaml_1_1_reads_as_something_else_is_text(text: str) -> None:
    assert data(f"a: {text}") == {"a": text}


@pytest.mark.parametrize(("text", "value"), [("true", True), ("false", False), ("True", True), ("FALSE", False)])
def test_true_and_false_are_booleans(text: str, value: object) -> None:
    assert data(f"a: {text}") == {"a": value}


@pytest.mark.parametrize("text", ["null", "~", "", "Null"])
def test_null_tilde_and_nothing_are_none(text: str) -> None:
    assert data(f"a: {text}") == {"a": None}


@pytest.mark.parametrize("text", ['"1"', "'true'", '"~"', "'1e-4'"])
def test_quoted_values_are_text(text: str) -> None:
    assert data(f"a: {text}") == {"a": text[1:-1]}


def test_an_empty_file_is_none() -> None:
    assert data("# nothing here\n") is None


@pytest.mark.parametrize("text", [".inf", "-.inf", ".nan", "[1, .NaN]", "1e999"])
def test_numbers_that_are_not_finite_are_refused(text: str) -> None:
    assert refusal(f"a: {text}").startswith("sweeps/x.yaml:1: ")


def test_a_repeated_key_is_refused_with_both_lines() -> None:
    text = "base:\n  method: one\n  lr: 1\n\n  seed: 0\n  # again\n  lr: 2\n"

    assert refusal(text) == "sweeps/x.yaml:7: repeated key 'lr', first on line 3"


def test_the_same_key_in_two_mappings_is_no_repetition() -> None:
    assert data("- {a: 1}\n- {a: 2}\n") == [{"a": 1}, {"a": 2}]


def test_a_repeated_key_in_a_flow_mapping_is_refused() -> None:
    assert "repeated key 'a', first on line 1" in refusal("{a: 1, a: 2}")


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.system ['touch PWNED']", "!!str 5", "!mine x", "! x"])
def test_explicit_tags_are_refused(tag: str) -> None:
    assert "sweeps/x.yaml:2: tag " in refusal(f"a: 1\nb: {tag}\n")


def test_anchors_and_aliases_are_refused() -> None:
    problems = refusal("a: &x 1\nb: *x\n").split("\n")

    assert problems == [
        "sweeps/x.yaml:1: anchor &x is refused; write the value out where it is needed",
        "sweeps/x.yaml:2: alias *x is refused; write the value out",
    ]


def test_an_alias_bomb_is_refused_before_it_grows() -> None:
    bomb = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 20))

    assert "anchor &a0 is refused" in refusal(bomb)


@pytest.mark.parametrize(
    ("key", "shown"), [("1", "1"), ("true", "True"), ("~", "None"), ("? [a]\n", "['a']"), ("1.5", "1.5")]
)
def test_keys_that_are_not_text_are_refused(key: str, shown: str) -> None:
    assert refusal(f"{key}: x") == f"sweeps/x.yaml:1: key {shown} must be text; write it in quotes"


def test_all_problems_are_told_at_once() -> None:
    problems = refusal("a: 1\na: 2\n3: x\nb: !t y\n").split("\n")

    assert [problem.partition(": ")[0] for problem in problems] == [f"sweeps/x.yaml:{line}" for line in (2, 3, 4)]


@pytest.mark.parametrize("form", ["[", "- ", "? ", "{a: "])
def test_nesting_beyond_the_limit_is_refused(form: str) -> None:
    assert "nested more than 32 deep" in refusal(form * 5000)


def test_nesting_up_to_the_limit_is_read() -> None:
    nested = data("[" * 32 + "1" + "]" * 32)

    assert str(nested) == "[" * 32 + "1" + "]" * 32


def test_too_many_values_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "MOST_NODES", 10)

    assert len(data("[1, 2, 3, 4, 5, 6, 7, 8, 9]")) == 9
    assert refusal("[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]") == "sweeps/x.yaml:1: more than 10 values; split the file"


@pytest.mark.parametrize("mark", ["", '"', "'"])
def test_a_text_without_end_is_refused(mark: str) -> None:
    assert "a text of more than 100000 characters" in refusal(f"a: {mark}{'x' * 100_001}{mark}")


def test_an_integer_of_thousands_of_digits_is_refused() -> None:
    assert "has 5000 digits, which is too many" in refusal("a: " + "9" * 5000)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: 1\nb: c: d\n", 2),
        ("a:\n  - 1\n\t- 2\n", 3),
        ("a: 1\n\nb: \x07\n", 3),
        ("a: [1,\n 2\n", 3),
        ('a: "\\UFFFFFFFF"', 1),
        ("a: 1\n---\nb: 2\n", 2),
    ],
)
def test_syntax_errors_name_their_line(text: str, line: int) -> None:
    assert f"sweeps/x.yaml:{line}: " in refusal(text)


def test_where_is_the_line_of_the_key() -> None:
    document = parse("base:\n  lr: 1\n\nrows:\n  - name: a\n  -\n    name: b\n    where:\n      gamma: .8\n", HERE)

    assert document.where() == "sweeps/x.yaml:1"
    assert document.where("base", "lr") == "sweeps/x.yaml:2"
    assert document.where("rows") == "sweeps/x.yaml:4"
    assert document.where("rows", 0) == "sweeps/x.yaml:5"
    assert document.where("rows", 1, "where") == "sweeps/x.yaml:8"
    assert document.where("rows", 1, "where", "gamma") == "sweeps/x.yaml:9"


def test_where_falls_back_to_what_is_around_the_key() -> None:
    document = parse("a: 1\nbase:\n  lr: 1\n", HERE)

    assert document.where("base", "seed", "x") == "sweeps/x.yaml:2"
    assert document.where("nowhere") == "sweeps/x.yaml:1"


def test_a_file_is_read_as_its_text_is(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes("\ufeffname: Grünspecht\r\nlr: 1e-3\r\n".encode())

    assert read(path) == Document(path, {"name": "Grünspecht", "lr": 0.001})


def test_a_missing_file_is_told_with_the_nearest_name(tmp_path: Path) -> None:
    (tmp_path / "drop-rate.yaml").touch()

    with pytest.raises(InputError, match=r"no file '.*drop-rat\.yaml', did you mean 'drop-rate\.yaml'\?"):
        read(tmp_path / "drop-rat.yaml")


def test_a_missing_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no file '"):
        read(tmp_path / "none" / "a.yaml")


def test_a_folder_is_no_document(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read: Is a directory"):
        read(tmp_path)


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(b"a: \xff\xfe")

    with pytest.raises(InputError, match="is not UTF-8 text: byte 3"):
        read(tmp_path / "a.yaml")


def test_a_huge_file_is_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / "a.yaml").open("wb") as file:
        file.truncate(1 << 40)

    with pytest.raises(InputError, match="has more than 1000000 bytes; it must be settings, not data: split it"):
        read(tmp_path / "a.yaml")


def test_a_device_without_end_is_refused() -> None:
    with pytest.raises(InputError, match="/dev/zero has more than 1000000 bytes"):
        read(Path("/dev/zero"))


HOSTILE = {
    "a flow list of 150,000 values": ("[" + ",".join(map(str, range(150_000))), "more than 50000 values"),
    "90,000 keys": ("".join(f"k{n}: 1\n" for n in range(90_000)), "more than 50000 values"),
    "a million brackets": ("[" * 1_000_000, "nested more than 32 deep"),
    "a million dashes": ("- " * 500_000, "nested more than 32 deep"),
    "indented without end": ("".join(" " * n + "a:\n" for n in range(1_400)), "nested more than 32 deep"),
    "an alias bomb": ("a: &x [1, 1]\nb: [" + "*x," * 30_000, "anchor &x is refused"),
    "a merge": ("a: {b: 1}\nc:\n  <<: *a\n", "alias *a is refused"),
    "a call": ("a: !!python/object/apply:os.system ['true']\n", "tag tag:yaml.org,2002:python/object/apply"),
    "a repeated key": ("a: 1\n" * 20_000, "repeated key 'a', first on line 1"),
    "a tab": ("a:\n\tb: 1\n", "cannot start any token"),
    "a NUL byte": ("a: 1\nb: \0\n", "special characters are not allowed"),
    "half a character": ("a: \udcff\n", "is not UTF-8 text: byte 3"),
    "nothing but NUL bytes": ("\0" * 1_000_000, "special characters are not allowed"),
    "documents without end": ("---\n" * 200_000, "a second document begins; there must be one"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_with_its_name(name: str, tmp_path: Path) -> None:
    text, message = HOSTILE[name]
    path = tmp_path / "hostile.yaml"
    path.write_bytes(text.encode(errors="surrogateescape"))

    with pytest.raises(InputError) as refused:
        read(path)

    assert message in str(refused.value)
    assert all(problem.startswith(str(path)) for problem in refused.value.problems)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 0.0001),
        ("30", 30),
        ("true", True),
        ("no", "no"),
        ("", None),
        ("12:00:00", "12:00:00"),
        ("[pool3, pool4]", ["pool3", "pool4"]),
        ("[1, 2.5, ~]", [1, 2.5, None]),
        ("{a: 1}", {"a": 1}),
        ('"1"', "1"),
        ("/data/a: b #1", "/data/a: b #1"),
        ("- x", "- x"),
    ],
)
def test_a_value_on_the_command_line_follows_the_same_rules(text: str, value: object) -> None:
    assert scalar(text) == value
    assert type(scalar(text)) is type(value)


@pytest.mark.parametrize(
    "text", ["[a", "!!python/name:os.system", "&a 1", "*a", ".nan", "[.inf]", "'x", "{a: 1, a: 2}"]
)
def test_a_refused_value_on_the_command_line_is_shown(text: str) -> None:
    with pytest.raises(InputError) as refused:
        scalar(text)

    assert str(refused.value).startswith(f"{text!r}: ")


@given(PLAIN_DATA)
def test_json_is_read_as_what_was_dumped(plain: object) -> None:
    assert data(json.dumps(plain)) == plain


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        document = parse(text, HERE)
    except InputError as refused:
        assert str(refused).startswith("sweeps/x.yaml:")  # noqa: PT017
    else:
        json.dumps(document.data, allow_nan=False)
