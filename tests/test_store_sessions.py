"""Who is signed in and by what, on every engine: sessions, proofs that are used once, accounts that are tied."""

from __future__ import annotations

from sqlalchemy import Connection, func, insert, select, update

from newapi_proxy.accounts import sessions
from newapi_proxy.billing import ledger, records
from newapi_proxy.secret import Secret
from newapi_proxy.store import logins, logs, tokens, users
from newapi_proxy.store import sessions as rows
from newapi_proxy.store.logins import Login
from newapi_proxy.store.schema import users as user_table
from tests.fakes import money

COLUMN = "telegram_id"


def _count(conn: Connection) -> int:
    return conn.execute(select(func.count()).select_from(rows.TABLE)).scalar() or 0


def test_a_session_has_its_time(conn: Connection) -> None:
    """A session is found by its text until its time is over or it is ended, and those that are over are forgotten."""
    assert rows.begin(conn, [sessions.opened("text", sessions.KEY, "d" * 64, 100, 60.9)]) == [True]
    found = rows.find(conn, sessions.number("text"), 159)
    assert found == rows.Session(sessions.number("text"), "key", "d" * 64, 160)
    assert rows.find(conn, sessions.number("text"), 160) is None
    assert rows.find(conn, sessions.number("other"), 100) is None
    assert rows.begin(conn, [sessions.opened("next", sessions.USER, "7", 170, 60)]) == [True]
    assert _count(conn) == 1
    assert rows.end(conn, [sessions.number("next"), sessions.number("next")]) == [True, False]


def test_one_subject_has_so_many(conn: Connection) -> None:
    """What is one too many makes the one end that would have ended first; others' are let alone."""
    rows.begin(conn, [sessions.opened("other", sessions.USER, "8", 1, 60)])
    rows.begin(conn, [sessions.opened(f"t{number}", sessions.USER, "7", 1, 60 + number) for number in range(25)])
    assert _count(conn) == rows.MOST + 1
    assert rows.find(conn, sessions.number("t4"), 2) is None
    assert rows.find(conn, sessions.number("t5"), 2) is not None
    assert rows.find(conn, sessions.number("other"), 2) is not None


def test_a_proof_is_used_once(conn: Connection) -> None:
    """A proof is taken once, within one group and later, as long as it would be good; it stands for nobody."""
    proofs = [sessions.used(text, 100, 600) for text in ("a", "a", "b")]
    assert rows.begin(conn, proofs) == [True, False, True]
    assert rows.begin(conn, [sessions.used("a", 699, 600)]) == [False]
    assert rows.begin(conn, [sessions.used("a", 700, 600)]) == [True]
    rows.begin(conn, [sessions.used(str(number), 700, 600) for number in range(30)])
    assert _count(conn) == 31


def test_the_operators_key_is_not_stored(conn: Connection) -> None:
    """What stands for it can be made with the session's text alone, and is another in each session."""
    one, other = (sessions.operator(text, "admin-key") for text in ("a", "b"))
    assert one != other
    assert sessions.still("a", one, [Secret("x"), Secret("admin-key")])
    assert not sessions.still("b", one, [Secret("admin-key")])
    assert not sessions.still("a", one, [])


def test_an_account_stands_for_one(conn: Connection) -> None:
    """A user's column or a row of ours: nobody else is bound to it, deleted users are nobody, and it can be undone."""
    for id, name in ((7, "ada"), (8, "ben")):
        conn.execute(insert(user_table).values(id=id, username=name, password="!", status=1, aff_code=name))
    ada, ben = Login(COLUMN, "42", 7, ""), Login(COLUMN, "42", 8, "")
    key, other = Login(COLUMN, "43", 0, "d" * 64), Login(COLUMN, "43", 0, "e" * 64)
    assert logins.find(conn, COLUMN, "42") is None
    assert logins.bind(conn, [ada, ben, key, other, Login(COLUMN, "43", 7, ""), Login(COLUMN, "44", 9, "")]) == [
        "bound", "taken", "bound", "taken", "taken", "gone",
    ]  # fmt: skip
    found = logins.find(conn, COLUMN, "42")
    assert isinstance(found, users.User)
    assert (found.id, logins.find(conn, COLUMN, "43")) == (7, "d" * 64)
    assert (logins.find(conn, COLUMN, ""), logins.find(conn, COLUMN, "4")) == (None, None)
    assert [logins.told(conn, one) for one in (ada, ben, key, other)] == ["42", "", "43", ""]
    assert logins.bind(conn, [Login(COLUMN, "50", 0, "d" * 64), Login(COLUMN, "51", 7, "")]) == ["bound", "bound"]
    assert (logins.find(conn, COLUMN, "43"), logins.find(conn, COLUMN, "42")) == (None, None)
    assert logins.unbind(conn, [ada, ben, key, other]) == [True, False, True, False]
    assert [logins.told(conn, one) for one in (ada, key)] == ["", ""]
    logins.bind(conn, [ada])
    conn.execute(update(user_table).where(user_table.c.id == 7).values(deleted_at=func.now()))
    assert logins.find(conn, COLUMN, "42") is None
    assert logins.bind(conn, [ben]) == ["bound"]


def test_rows_of_some_keys(conn: Connection) -> None:
    """Sums and rows are those of the keys that are asked for, the newest first by pages, money alone in a period."""
    entries = [
        logs.Entry(user_id=1, created_at=1000 * number, type=type, token_id=id, token_name=f"k{id}", quota=number)
        for number, (id, type) in enumerate([(1, 2), (2, 2), (1, 6), (3, 2), (1, 1), (1, 2)], start=1)
    ]
    logs.add(conn, entries)
    assert [row.quota for row in logs.page(conn, [1, 2], (0, 3))] == [6, 5, 3]
    assert [row.quota for row in logs.page(conn, [1, 2], (3, 3))] == [2, 1]
    assert [row.quota for row in logs.newest(conn, 1, 2)] == [5, 6]
    assert [row.quota for row in logs.between(conn, [1], 1000, 6000, 9)] == [1, 3]
    assert [row.quota for row in logs.between(conn, [1], 0, 9000, 2)] == [3, 6]
    assert sum(one.quota for one in logs.spent(conn, 0, 9000, [1])) == 1 - 3 + 6
    assert logs.spent(conn, 0, 9000, []) == []
    assert logs.page(conn, [], (0, 9)) == []
    assert sum(one.quota for one in logs.spent(conn, 0, 9000)) == 1 + 2 - 3 + 4 + 6


def test_open_holds(conn: Connection) -> None:
    """Holds that are open are told, the oldest first, with the name of their key; settled ones are not."""
    row = tokens.ensure(conn, [tokens.YamlToken(digest=tokens.digest("k"), name="alice", group="", quota=1000)], 5)
    id = row[tokens.digest("k")].id
    account = ledger.Account(id, row[tokens.digest("k")].user_id, token_limited=True, user_limited=False)
    for name in ("a", "b", "c"):
        ledger.hold(conn, [money.hold(name, account, 10)])
    ledger.settle(conn, [money.settlement("b", account, 10, 4)])
    found = records.holds(conn, 1)
    assert ([one.request_id for one in found.oldest], found.count, found.units) == (["a"], 2, 20)
    assert found.oldest[0].token == "alice"
    assert records.holds(conn, 9).oldest[1].request_id == "c"
