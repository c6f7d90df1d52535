"""Nothing that a request carries is shown: not in statements, not in paths, and no line is forged with it."""

import pytest

from greenroom import redaction

SECRET = "hunter2"


@pytest.mark.parametrize(
    ("sql", "seen"),
    [
        ("SELECT * FROM t1 WHERE name = 'O''Hara' AND n > 12.5", "SELECT * FROM t1 WHERE name = ? AND n > ?"),
        ("SELECT E'it\\'s', $$secret$$, $a$sec$ret$a$", "SELECT E?, ?, ?"),
        ("SELECT a1 FROM b WHERE id = %(id_1)s LIMIT 10", "SELECT a1 FROM b WHERE id = %(id_1)s LIMIT ?"),
        ("SELECT $1, t1.c2 FROM t1", "SELECT $1, t1.c2 FROM t1"),
        ("SELECT 0xDEADBEEF, 1_000, .5, 1e-5, B'10', x'1F'", "SELECT ?, ?, ?, ?, B?, x?"),
        ("SELECT 1 /* hunter2 it's */ FROM t", "SELECT ? FROM t"),
        ("SELECT 1 -- it's\nFROM t WHERE x = 'hunter2'", "SELECT ? FROM t WHERE x = ?"),
        ('SELECT "it\'s", "a""--b" FROM t', 'SELECT "it\'s", "a""--b" FROM t'),
        ("SELECT 'a\\\\', 'b'", "SELECT ?, ?"),
        ("SELECT a$b$ FROM c$d WHERE x = '$b$'", "SELECT a$b$ FROM c$d WHERE x = ?"),
        ("SELECT\n  a,\tb\x00FROM t", "SELECT a, b\N{REPLACEMENT CHARACTER}FROM t"),
    ],
)
def test_statements_are_shown_without_their_values(sql: str, seen: str) -> None:
    assert redaction.detail("query", sql) == seen


@pytest.mark.parametrize(
    "sql",
    [
        # Whether these strings end at their second quote depends on a setting of the server.
        "SELECT * FROM f WHERE path = 'C:\\' AND pw = 'hunter2'",
        "SELECT * FROM f WHERE path = 'it\\'s hunter2' AND a = 1",
        "SELECT a LIKE '%x' ESCAPE '\\' AND token = 'hunter2'",
        "SELECT typE'x\\' , 'hunter2'",
        "SELECT /* a /* b */ hunter2 */ 1",
        "INSERT INTO users VALUES ('hunter2 cut off in the mid",
        "INSERT INTO users VALUES (E'hunter2",
        "INSERT INTO users VALUES ($a$hunter2$b$",
        'SELECT "hunter2',
        "SELECT 1 /* hunter2",
    ],
)
def test_what_could_be_a_value_is_cut_with_the_rest_of_the_statement(sql: str) -> None:
    said = redaction.detail("query", sql)

    assert SECRET not in said
    assert said.endswith("?...")
    assert said.startswith(sql[:6])


def test_statements_that_are_bytes_or_composed_show_nothing() -> None:
    for sql in ("Composed([SQL('SELECT '), Literal(\"it's hunter2\")])", "b\"SELECT 'hunter2'\""):
        assert redaction.detail("query", sql) == "a statement that is not text"


def test_only_where_a_connection_leads_is_no_statement() -> None:
    assert redaction.detail("query", "connect to db-1.example:5432") == "connect to db-1.example:5432"
    assert redaction.detail("query", "connect to 'hunter2'") == "connect to ?"


@pytest.mark.parametrize(
    ("path", "seen"),
    [
        ("/reset-password/ImFubkBleGFtcGxlLm9yZyI.Z0BcdA.x9dKzq/now", "/reset-password/ImFu…/now"),
        ("/reset/vGm0Oq3pXrJ4mUlG3VxLrA", "/reset/vGm0…"),
        ("/hook/0af76519-16cd-43dd-8448-eb211c80319c", "/hook/0af7…"),
        ("/users/bob@example.org/edit", "/users/…@…/edit"),
        ("/x;jsessionid=abcdef01", "/x;js…"),
        ("/boards/7", "/boards/7"),
    ],
)
def test_tokens_and_people_in_paths_are_masked(path: str, seen: str) -> None:
    assert redaction.path(path) == seen
    assert redaction.path(seen) == seen


def test_no_text_of_a_client_begins_a_line_or_moves_the_cursor() -> None:
    hostile = "/p\n[2026-11-22] [ERROR] stall\r\x1b[2J\u2028\u202e"

    for said in (redaction.path(hostile), redaction.detail("lock", hostile), redaction.line(hostile)):
        assert said.isprintable()
        assert len(said.splitlines()) == 1
    assert len(redaction.line("x" * 1000)) == redaction.LONGEST


@pytest.mark.parametrize(
    ("target", "seen"),
    [
        ("/reset?token=hunter2&page=3", "/reset?token=\N{HORIZONTAL ELLIPSIS}&page=\N{HORIZONTAL ELLIPSIS}"),
        ("/reset?hunter2", "/reset?\N{HORIZONTAL ELLIPSIS}"),
        ("/reset/hunter2hunter2hunter2", "/reset/hunt\N{HORIZONTAL ELLIPSIS}"),
        ("/a;sid=hunter2/b", "/a;\N{HORIZONTAL ELLIPSIS}/b"),
        ("http://me:hunter2@shop.example/a", "http://\N{HORIZONTAL ELLIPSIS}@\N{HORIZONTAL ELLIPSIS}/a"),
        ("/a#hunter2", "/a"),
        ("/shop/items", "/shop/items"),
        ("*", "*"),
    ],
)
def test_targets_are_shown_without_values(target: str, seen: str) -> None:
    assert redaction.target(target) == seen
    assert redaction.target(seen) == seen


def test_texts_about_a_request_are_shown_without_its_target() -> None:
    said = redaction.words("Invalid request from ip=2001:db8:1234:5678:9abc:def0:1234:5678: GET /x?t=hunter2 HTP/1.1")

    assert "hunter2" not in said
    assert "ip=2001:db8:1234:5678:9abc:def0:1234:5678: GET /x?t=" in said
