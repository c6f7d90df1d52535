r"""The parts of a request that anybody may see: no values, no tokens, and nothing that forges a line.

Statements are PostgreSQL's, read as its lexer does. A plain string in which a backslash stands before a quote ends
there or goes on, as `standard_conforming_strings` is set, and nobody here knows that; what begins and does not end was
cut off. In doubt, and so in both of these cases, the rest of the statement is not shown.
"""

import functools
import re

LONGEST = 300
# Tokens of 8 bytes in hexadecimal are as long; identifiers of rows are shorter.
SECRET_CHARACTERS = 16
SHOWN_OF_SECRET = 4
TARGET_MARKS = re.compile("[/?&;]")
LONGEST_WORD = 45  # an IPv6 address, with a name before it
ELLIPSIS = "\N{HORIZONTAL ELLIPSIS}"
# A nested comment is a case of doubt. Possessive quantifiers of groups are atomic groups instead: Python 3.11.2, which
# is Debian's, gets them wrong.
TOKENS = re.compile(
    r"""
      (?P<comment> --[^\r\n]*+ | /\*(?>(?:[^*/]|\*(?!/)|/(?!\*))*)\*/ )
    | (?P<value> [eE]'(?>(?:[^'\\]|''|\\.)*)'
               | '(?>(?:[^'\\]|''|\\[^'])*)'
               | \$(?P<tag>(?:[a-zA-Z_\x80-\U0010FFFF][\w\x80-\U0010FFFF]*+)?)\$.*?\$(?P=tag)\$
               | \.?\d[\w.]*+(?:(?<=[eE])[+-]\d[\w.]*+)? )
    | (?P<doubt> (?:'|[eE]'|"(?>(?:[^"]|"")*)\Z|/\*|\$(?:[a-zA-Z_\x80-\U0010FFFF][\w\x80-\U0010FFFF]*+)?\$).*\Z )
    | (?P<name> [a-zA-Z_\x80-\U0010FFFF][\w$\x80-\U0010FFFF]*+ | "(?>(?:[^"]|"")*)" | \$\d++ )
    """,
    re.VERBOSE | re.DOTALL,
)
# The beginning of `str()` of statements that are no strings: bytes, and the parts of psycopg2.sql.
NO_TEXT = re.compile(r"""b['"]|(?:Composed|SQL|Identifier|Literal|Placeholder)\(""")
CONNECTING = re.compile(r"connect to [\w.,:/@% \[\]-]+")


@functools.lru_cache(maxsize=512)
def detail(kind: str, text: str) -> str:
    """Return the object of a request's wait as it may be shown: a host, a lock, a statement without its values."""
    if kind == "query" and not CONNECTING.fullmatch(text):
        text = statement(text)
    return line(text)


def statement(sql: str) -> str:
    """The beginning of a statement with `?` for each value, without comments, on one line."""
    if NO_TEXT.match(sql):
        return "a statement that is not text"
    return " ".join(TOKENS.sub(_token, sql[:LONGEST]).split())


def _token(found: re.Match[str]) -> str:
    if found.lastgroup == "comment":
        return " "
    if found.lastgroup == "name":
        return found[0]
    value = f"{found[0][0]}?" if found[0][0] in "eE" else "?"
    return value if found.lastgroup == "value" else f"{value}..."


def path(text: str) -> str:
    """A path without what could be a secret or a person: tokens, UUIDs, and addresses of mail in it."""
    return "/".join(_segment(part) for part in line(text).split("/"))


def target(text: str) -> str:
    """The target of a request, or any URL, as every line of a log has it: of the query only the names."""
    before, mark, asked = text.partition("#")[0].partition("?")
    return f"{path(before)}{mark}{query(asked)}"


def query(text: str) -> str:
    """A query without its values. A part without a name is a value."""
    return "&".join(_pair(*pair.partition("=")[:2]) for pair in line(text).split("&"))


def _pair(name: str, equals: str) -> str:
    if not equals:
        return name and ELLIPSIS
    return f"{_segment(name)}={ELLIPSIS}"


def words(text: str) -> str:
    """Return a text about a request, an error's say, as it may be shown: there may be targets in it."""
    return " ".join(
        target(word) if TARGET_MARKS.search(word) or len(word) > LONGEST_WORD else word
        for word in line(text).split(" ")
    )


MAIL = re.compile(r"[^\s@'\"<>(),;]+@[^\s@'\"<>(),;]+")
QUOTED = re.compile(r"\"([^\"]*)\"|'([^']*)'")
PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z_.\-]{0,39}|[\w.\-]+:\d+|[0-9.]+|/[A-Za-z_./\-]{0,60}")
# Of drivers and of SQLAlchemy: rows, statements and their values come behind these.
DETAILS = ("\nDETAIL:", "[SQL:", "[parameters:")


def message(text: str) -> str:
    """An exception's message: its first line, without addresses of mail, values in quotes, tokens.

    Quoted text stays where it looks like a name, an address or a number.
    """
    for mark in DETAILS:
        text = text.partition(mark)[0]
    lines = text.strip().splitlines()
    said = QUOTED.sub(_quoted, MAIL.sub(f"{ELLIPSIS}@{ELLIPSIS}", lines[0])) if lines else ""
    return line(" ".join(_word(word) for word in said.split(" ")))


def _quoted(found: re.Match[str]) -> str:
    value, mark = next((value, mark) for value, mark in ((found[1], '"'), (found[2], "'")) if value is not None)
    return found[0] if PLAIN_NAME.fullmatch(value) or value in ("", ELLIPSIS) else f"{mark}{ELLIPSIS}{mark}"


def _word(word: str) -> str:
    """A long word with digits in it may be a token; one with a path or a query in it is shown as targets are."""
    if "://" in word or "?" in word:
        return target(word)
    has_digits = sum(letter.isdigit() for letter in word) >= 3
    is_plain = not any(letter in ".:/()[]" for letter in word)
    if len(word) >= SECRET_CHARACTERS and has_digits and is_plain:
        return f"{word[:SHOWN_OF_SECRET]}{ELLIPSIS}"
    return target(word) if len(word) > LONGEST_WORD and "/" in word else word


def _segment(part: str) -> str:
    if "@" in part or "%40" in part:
        return f"{ELLIPSIS}@{ELLIPSIS}"
    if len(part) >= SECRET_CHARACTERS:
        return f"{part[:SHOWN_OF_SECRET]}{ELLIPSIS}"
    name, semicolon, _ = part.partition(";")  # parameters of a segment
    return f"{name};{ELLIPSIS}" if semicolon and not part.endswith(ELLIPSIS) else part


def line(text: str) -> str:
    """A text of bounded length that begins no new line and moves no cursor."""
    text = text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
