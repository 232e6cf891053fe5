"""The independent checker: what a run left behind, added up. Plain sqlite3 and the standard library, no project code.

    python -m tests.reliability.oracle FOLDER

The folder holds `run.json` (start balances, prices, secrets), `newapi.db`, the journals `upstream.jsonl` (provider)
and `clients.jsonl` (load), `settled.jsonl` (what was settled at the last kill) and the daemon's `log.jsonl`.
The rules:

O1  balances, counters of keys and channels, logs and ledger entries add up, for every token, to the unit; so do
    budgets and the entries in their windows
O2  what a client saw complete is settled once, at exactly the price of upstream's usage; what ended before costs what
    upstream stated, or what was delivered and no more than upstream sent; nothing where nothing was sent, or where it
    failed or was refused; every settled row has one row of the log, no other has any
O3  nothing stays held, no balance is below zero, nothing changes after it was settled, and a start gives back what
    the killed process held
O4  the usage a client saw is upstream's, the log's and the ledger's
O5  no request makes more attempts than allowed, none with one channel and key twice
O6  no secret stands in the log, the database or an answer
O7  copies of a request under one idempotency key are charged once among them, and see the same bytes; an answer is kept
    for each such charge, and for nothing else

A client's row with a `key` is such a copy; the provider's journal knows all of them by that key.
"""

from __future__ import annotations

import json
import sqlite3
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

Row = dict[str, Any]
RECOVERED = "the process that held it ended"  # the reason of a row that a start gave back


@dataclass
class Run:
    """Everything a run left behind."""

    meta: Row
    ledger: dict[str, Row]
    tokens: dict[int, Row]
    logs: dict[str, list[Row]]
    upstream: dict[str, list[Row]]
    clients: dict[str, Row]
    settled: list[Row]
    channels: dict[int, Row] = field(default_factory=dict)
    texts: dict[str, bytes] = field(default_factory=dict)
    kept: dict[str, str] = field(default_factory=dict)
    budgets: list[Row] = field(default_factory=list)

    @cached_property
    def paying(self) -> dict[str, str]:
        """Of each idempotency key the request that was settled."""
        settled = (one for one in self.clients.values() if self.ledger.get(one["id"], {}).get("state") == "settled")
        return {client["key"]: client["id"] for client in settled if client.get("key")}


def read(folder: Path) -> Run:
    """Loads a run's folder."""
    with closing(sqlite3.connect(folder / "newapi.db")) as conn:
        conn.row_factory = sqlite3.Row
        ledger = {row["request_id"]: dict(row) for row in conn.execute("SELECT * FROM ledger")}
        tokens = {row["id"]: dict(row) for row in conn.execute("SELECT * FROM tokens")}
        channels = {row["id"]: dict(row) for row in conn.execute("SELECT id, name, used_quota FROM channels")}
        logs = _grouped((dict(row) for row in conn.execute("SELECT * FROM logs WHERE type = 2")), "request_id")
        kept = {row["owner"]: row["state"] for row in conn.execute("SELECT owner, state FROM proxy_replies")}
        budgets = [dict(row) for row in conn.execute("SELECT * FROM proxy_budgets")]
    files = [*folder.glob("newapi.db*"), *folder.glob("log*.jsonl"), *folder.glob("stderr*")]
    return Run(
        meta=json.loads((folder / "run.json").read_text()),
        ledger=ledger,
        tokens=tokens,
        logs=logs,
        upstream=_grouped(_lines(folder / "upstream.jsonl"), "id"),
        clients={row["id"]: row for row in _lines(folder / "clients.jsonl")},
        settled=list(_lines(folder / "settled.jsonl")),
        channels=channels,
        texts={path.name: path.read_bytes() for path in files},
        kept=kept,
        budgets=budgets,
    )


def check(run: Run) -> list[str]:
    """Every violation of a rule, in words; empty when all hold."""
    rules = (
        _sums,
        _channels,
        _budgets,
        _complete,
        _charges,
        _aborted,
        _logged,
        _resolved,
        _usages,
        _attempts,
        _secrets,
        _copies,
    )
    return [fault for rule in rules for fault in rule(run)]


def _sums(run: Run) -> Iterator[str]:
    held: Counter[int] = Counter()
    charged: Counter[int] = Counter()
    logged: Counter[int] = Counter()
    for row in run.ledger.values():
        if row["state"] == "held":
            held[row["token_id"]] += row["held"]
        elif row["state"] == "settled":
            charged[row["token_id"]] += row["charged"]
        elif row["charged"]:
            yield f"O1 {row['request_id']} is {row['state']} and charged {row['charged']}"
    for rows in run.logs.values():
        for row in rows:
            logged[row["token_id"]] += row["quota"]
    for id, token in run.tokens.items():
        start = run.meta["tokens"].get(token["name"])
        if start is not None and token["remain_quota"] + held[id] + charged[id] != start:
            parts = f"{token['remain_quota']} + held {held[id]} + charged {charged[id]}"
            yield f"O1 {token['name']}: {start} is not {parts}"
        if token["used_quota"] != charged[id]:
            yield f"O1 {token['name']}: used {token['used_quota']} is not charged {charged[id]}"
        if logged[id] != charged[id]:
            yield f"O1 {token['name']}: logs say {logged[id]}, the ledger {charged[id]}"


def _channels(run: Run) -> Iterator[str]:
    charged = Counter[int]()
    for row in run.ledger.values():
        charged[row["channel_id"]] += row["charged"]
    for id, channel in run.channels.items():
        if channel["used_quota"] != charged[id]:
            yield f"O1 channel {channel['name']}: used {channel['used_quota']} is not charged {charged[id]}"


def _budgets(run: Run) -> Iterator[str]:
    due: Counter[tuple[int, str]] = Counter()
    for row in run.ledger.values():
        for window in filter(None, (row.get("budgets") or "").split(",")):
            due[row["token_id"], window] += row["held"] if row["state"] == "held" else row["charged"]
    for budget in run.budgets:
        key = (budget["token_id"], f"{budget['every']}:{budget['starts']}")
        if budget["used"] != due.pop(key, 0):
            yield f"O1 the budget {key} counts {budget['used']}, its entries are another sum"
    for key, units in due.items():
        if units:
            yield f"O1 {units} units count in the budget {key}, which is not there"


def _complete(run: Run) -> Iterator[str]:
    for id, client in run.clients.items():
        if not client["complete"]:
            continue
        row = run.ledger.get(_charged(run, client))
        if row is None or row["state"] != "settled":
            yield f"O2 {id} was seen complete and is {row and row['state']} in the ledger"
        elif row["charged"] + row["shortfall"] != (price := _price(run, client["plan"])):
            yield f"O2 {id} cost {row['charged']} + {row['shortfall']} short, by the price {price}"
        if (client.get("key") or id) not in run.upstream:
            yield f"O2 {id} was answered without upstream"


def _charges(run: Run) -> Iterator[str]:
    for id, row in run.ledger.items():
        client = run.clients.get(id)
        if row["state"] != "settled" or not row["charged"]:
            continue
        if ((client or {}).get("key") or id) not in run.upstream:
            yield f"O2 {id} is charged {row['charged']} and never reached upstream"
        if client is None:
            yield f"O2 {id} is charged and no client sent it"
        elif client["status"] not in (0, 200):
            yield f"O2 {id} is charged {row['charged']} and the client got {client['status']}"


def _aborted(run: Run) -> Iterator[str]:
    """What a client did not see to its end."""
    for id, client in run.clients.items():
        row, calls = run.ledger.get(_charged(run, client)), run.upstream.get(client.get("key") or id, ())
        if client["complete"]:
            continue
        if row is None or row["state"] != "settled":
            if client["pieces"] and (row is None or row["reason"] != RECOVERED):
                yield f"O2 {id}: {client['pieces']} pieces were delivered and not charged: {row and row['reason']}"
            continue
        units = row["charged"] + row["shortfall"]
        if any(call["end"] == "done" for call in calls) and units == _price(run, client["plan"]):
            continue
        sent = max((call["pieces"] for call in calls), default=0)
        least, most = _bounds(run, client["plan"], client["pieces"], sent)
        if not sent or not least <= units <= most:
            yield f"O2 {id}: {sent} pieces sent, {client['pieces']} seen, charged {units}, not {least} to {most}"


def _logged(run: Run) -> Iterator[str]:
    for id, row in run.ledger.items():
        told = [line["quota"] for line in run.logs.get(id, ())]
        due = [row["charged"]] if row["state"] == "settled" else []
        if told != due:
            yield f"O2 {id} is {row['state']} with {row['charged']}, its log rows say {told}"
    for id in run.logs.keys() - run.ledger.keys():
        yield f"O2 {id} is logged and not in the ledger"


def _price(run: Run, plan: Row) -> int:
    per_input, per_output, per_call = run.meta["units"]
    return int(per_call or plan["prompt"] * per_input + plan["completion"] * per_output)


def _bounds(run: Run, plan: Row, seen: int, sent: int) -> tuple[int, int]:
    """What was counted can cost: a piece is one to four tokens, a byte of the prompt at most one."""
    per_input, per_output, per_call = run.meta["units"]
    if per_call:
        return per_call, per_call
    return per_input + seen * per_output, (plan["bytes"] + 16) * per_input + (4 * sent + 4) * per_output


def _resolved(run: Run) -> Iterator[str]:
    for row in run.ledger.values():
        if row["state"] not in ("settled", "voided"):
            yield f"O3 {row['request_id']} is still {row['state']}"
    for token in run.tokens.values():
        if token["remain_quota"] < 0 and token["name"] in run.meta["tokens"]:
            yield f"O3 {token['name']} has {token['remain_quota']}"
    for id in run.meta.get("stale", ()):
        yield f"O3 {id} was held by a killed process and still is after the start"
    for old in run.settled:
        new = run.ledger.get(old["request_id"])
        if new is None or (new["state"], new["charged"]) != (old["state"], old["charged"]):
            now = new and (new["state"], new["charged"])
            yield f"O3 {old['request_id']} was {old['state']} {old['charged']} and is {now}"


def _usages(run: Run) -> Iterator[str]:
    for id, client in run.clients.items():
        if not client["complete"] or not client["usage"]:
            continue
        plan, rows = client["plan"], run.logs.get(_charged(run, client), [])
        seen = (client["usage"].get("prompt_tokens"), client["usage"].get("completion_tokens"))
        if seen != (plan["prompt"], plan["completion"]):
            yield f"O4 {id}: the client saw {seen}, upstream said {plan['prompt']}, {plan['completion']}"
        paid = run.ledger.get(_charged(run, client), {})
        told = json.loads(paid.get("detail") or "{}").get("usage", {})
        if (told.get("input"), told.get("output"), told.get("source")) != (*seen, "upstream"):
            yield f"O4 {id}: the ledger's detail has {told}"
        if [(row["prompt_tokens"], row["completion_tokens"]) for row in rows] != [seen]:
            yield f"O4 {id}: the log table has {rows}"


def _attempts(run: Run) -> Iterator[str]:
    copied = {client["key"] for client in run.clients.values() if client.get("key")}
    for id, calls in run.upstream.items():
        if id in copied:
            continue  # after a kill the next copy asks anew
        if len(calls) > run.meta["max_attempts"]:
            yield f"O5 {id} made {len(calls)} attempts"
        if len({(call["channel"], call["key"]) for call in calls}) != len(calls):
            yield f"O5 {id} used a channel and key twice"


def _charged(run: Run, client: Row) -> str:
    """The request that pays for what this client saw: its own, or the copy that was settled."""
    return run.paying.get(client.get("key") or "", client["id"])


def _copies(run: Run) -> Iterator[str]:
    copies: dict[str, list[Row]] = defaultdict(list)
    for client in run.clients.values():
        if client.get("key"):
            copies[client["key"]].append(client)
    for key, clients in copies.items():
        paid = [one["id"] for one in clients if run.ledger.get(one["id"], {}).get("state") == "settled"]
        if len(paid) > 1:
            yield f"O7 {key} is charged to {len(paid)} of its copies: {paid[:3]}"
        seen = {client["seen"] for client in clients if client["seen"]}
        if len(seen) > 1:
            yield f"O7 the copies of {key} saw {len(seen)} different answers"
        if seen and not paid:
            yield f"O7 {key} was answered and not charged"
        for id in paid:
            if run.kept.get(id) not in ("kept", "large"):
                yield f"O7 {id} is charged and its answer is {run.kept.get(id)}"
    for id, state in run.kept.items():
        if run.ledger.get(id, {}).get("state") != "settled":
            yield f"O7 the answer of {id} is {state}, but it is not charged"


def _secrets(run: Run) -> Iterator[str]:
    for name, text in run.texts.items():
        for secret in run.meta["secrets"]:
            if secret.encode() in text:
                yield f"O6 {secret} stands in {name}"
    for id, client in run.clients.items():
        if client["leak"]:
            yield f"O6 {id}: a secret in the answer"
    for id, calls in run.upstream.items():
        if any(call["leak"] for call in calls):
            yield f"O6 {id}: the client's key went upstream"


@dataclass
class TaskRun:
    """What a run of tasks left behind: the tables, what clients were told, what became of tasks upstream."""

    meta: Row
    ledger: dict[str, Row]
    tokens: dict[int, Row]
    channels: dict[int, Row]
    charged: dict[str, list[Row]]
    refunded: dict[str, list[Row]]
    tasks: dict[str, Row]
    upstream: dict[str, Row]
    clients: dict[str, Row]
    texts: dict[str, bytes] = field(default_factory=dict)


def read_tasks(folder: Path) -> TaskRun:
    """Loads such a run's folder. Tasks are by the request that submitted them, upstream's by their id."""
    with closing(sqlite3.connect(folder / "newapi.db")) as conn:
        conn.row_factory = sqlite3.Row
        logs = [dict(row) for row in conn.execute("SELECT * FROM logs")]
        rows = {row["id"]: dict(row) for row in conn.execute("SELECT * FROM midjourneys")}
        beside = [dict(row) for row in conn.execute("SELECT * FROM proxy_tasks WHERE shelf = 'midjourneys'")]
        found = TaskRun(
            meta=json.loads((folder / "run.json").read_text()),
            ledger={row["request_id"]: dict(row) for row in conn.execute("SELECT * FROM ledger")},
            tokens={row["id"]: dict(row) for row in conn.execute("SELECT * FROM tokens")},
            channels={row["id"]: dict(row) for row in conn.execute("SELECT id, name, used_quota FROM channels")},
            charged=_grouped(iter([row for row in logs if row["type"] == 2]), "request_id"),
            refunded=_grouped(iter([row for row in logs if row["type"] == 6]), "request_id"),
            tasks={row["request_id"]: {**rows.pop(row["row_id"]), "open": row["open"]} for row in beside},
            upstream={row["task"]: row for row in _lines(folder / "upstream.jsonl")},
            clients={row["id"]: row for row in _lines(folder / "clients.jsonl")},
        )
    assert not rows, "rows of tasks that nobody answers for"
    files = [*folder.glob("newapi.db*"), *folder.glob("log*.jsonl"), *folder.glob("stderr*")]
    found.texts = {path.name: path.read_bytes() for path in files}
    return found


def check_tasks(run: TaskRun) -> list[str]:
    """Every violation of a rule for tasks, in words.

    T1  balances, counters and logs add up with charges and refunds, for every token and channel, to the unit
    T2  a charge has one task and one log row, a task that cost something has one charge; what was refused costs nothing
    T3  a task that failed is paid back once, whole, to who paid; nothing else is paid back
    T4  every task has ended, as upstream's did; nothing is held
    T5  what a client was told it got is there, with upstream's id
    T6  no secret stands in the log, the database or an answer
    """
    rules = (_task_sums, _task_charges, _task_refunds, _task_ends, _task_clients, _task_secrets)
    return [fault for rule in rules for fault in rule(run)]


def _task_sums(run: TaskRun) -> Iterator[str]:
    by_token: Counter[int] = Counter()
    by_channel: Counter[int] = Counter()
    told: Counter[int] = Counter()
    for row in run.ledger.values():
        by_token[row["token_id"]] += row["charged"]
        by_channel[row["channel_id"]] += row["charged"]
    for sign, groups in ((1, run.charged), (-1, run.refunded)):
        for row in (row for rows in groups.values() for row in rows):
            told[row["token_id"]] += sign * row["quota"]
    for id, token in run.tokens.items():
        start = run.meta["tokens"].get(token["name"])
        if start is not None and token["remain_quota"] + by_token[id] != start:
            yield f"T1 {token['name']}: {start} is not {token['remain_quota']} + {by_token[id]}"
        if token["used_quota"] != by_token[id]:
            yield f"T1 {token['name']}: used {token['used_quota']} is not {by_token[id]}"
        if told[id] != by_token[id]:
            yield f"T1 {token['name']}: logs say {told[id]}, the ledger {by_token[id]}"
        if token["remain_quota"] < 0:
            yield f"T1 {token['name']} has {token['remain_quota']}"
    for id, channel in run.channels.items():
        if channel["used_quota"] != by_channel[id]:
            yield f"T1 channel {channel['name']}: used {channel['used_quota']} is not {by_channel[id]}"


def _task_charges(run: TaskRun) -> Iterator[str]:
    for id, row in run.ledger.items():
        task, logs = run.tasks.get(id), run.charged.get(id, [])
        if row["state"] == "settled":
            if task is None or task["quota"] != row["charged"]:
                yield f"T2 {id} is charged {row['charged']} for {task and task['quota']}"
            if [log["quota"] for log in logs] != [row["charged"]]:
                yield f"T2 {id} is charged {row['charged']}, its log rows say {[log['quota'] for log in logs]}"
            if row["charged"] != run.meta["price"]:
                yield f"T2 {id} is charged {row['charged']}, the price is {run.meta['price']}"
            if task is not None and task["code"] in (3, 4, 9, 23, 24):
                yield f"T2 {id} was refused with {task['code']} and is charged"
        elif logs:
            yield f"T2 {id} is {row['state']} and has log rows"
    for id, task in run.tasks.items():
        if task["quota"] and run.ledger.get(id, {}).get("state") != "settled":
            yield f"T2 {id}: a task of {task['quota']} that nobody was charged for"


def _task_refunds(run: TaskRun) -> Iterator[str]:
    backs = {id.removeprefix("refund:"): row for id, row in run.ledger.items() if row["state"] == "refunded"}
    for id, back in backs.items():
        task, paid = run.tasks.get(id), run.ledger.get(id)
        if task is None or task["status"] != "FAILURE":
            yield f"T3 {id} is paid back and is {task and task['status']}"
        if paid is None or (paid["charged"], paid["token_id"]) != (-back["charged"], back["token_id"]):
            yield f"T3 {id}: {-back['charged']} paid back of {paid and paid['charged']}"
    for id, task in run.tasks.items():
        if task["status"] == "FAILURE" and task["quota"] and id not in backs:
            yield f"T3 {id} failed and is not paid back"
    for id in run.refunded.keys() | backs.keys():
        rows = [row["quota"] for row in run.refunded.get(id, [])]
        if id not in backs or rows != [-backs[id]["charged"]]:
            yield f"T3 {id}: the log has {rows} paid back"


def _task_ends(run: TaskRun) -> Iterator[str]:
    for id, row in run.ledger.items():
        if row["state"] not in ("settled", "voided", "refunded"):
            yield f"T4 {id} is still {row['state']}"
    for id, task in run.tasks.items():
        if task["open"] or task["progress"] != "100%" or task["status"] not in ("SUCCESS", "FAILURE"):
            yield f"T4 {id} is {task['status']} {task['progress']}"
        life = run.upstream.get(task["mj_id"] or "")
        if life is None:
            if task["quota"]:
                yield f"T4 {id} is charged and unknown upstream"
            continue
        if life["request"] != id:
            yield f"T4 {id} has the task of {life['request']}"
        late = "did not finish" in (task["fail_reason"] or "")
        wanted = "SUCCESS" if life["fate"] == "success" else "FAILURE"
        if task["status"] != wanted and not late:
            yield f"T4 {id} is {task['status']}, upstream's end was {life['fate']}"
        if late and task["finish_time"] - task["submit_time"] < run.meta["deadline"] * 1000:
            yield f"T4 {id} was given up before its time, upstream's end was {life['fate']}"


def _task_clients(run: TaskRun) -> Iterator[str]:
    seen = {life["request"]: task for task, life in run.upstream.items()}
    for id, client in run.clients.items():
        task, row = run.tasks.get(id), run.ledger.get(id)
        if client["status"] == 200 and client["code"] == 1:
            if task is None or task["mj_id"] != client["task"] or seen.get(id) != client["task"]:
                yield f"T5 {id} was told {client['task']}, its row has {task and task['mj_id']}"
            if row is None or row["state"] != "settled":
                yield f"T5 {id} was accepted and is {row and row['state']}"
        elif client["status"] and row is not None and row["state"] == "settled":
            yield f"T5 {id} is charged and was told {client['status']} {client['code']}"


def _task_secrets(run: TaskRun) -> Iterator[str]:
    for name, text in run.texts.items():
        for secret in run.meta["secrets"]:
            if secret.encode() in text:
                yield f"T6 {secret} stands in {name}"
    for id, client in run.clients.items():
        if client.get("leak"):
            yield f"T6 {id}: a secret in the answer"


def _grouped(rows: Iterator[Row], key: str) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        found[row[key]].append(row)
    return dict(found)


def _lines(path: Path) -> Iterator[Row]:
    if path.exists():
        with path.open() as lines:
            yield from (json.loads(line) for line in lines)


def main() -> int:
    """Prints what is wrong in a folder."""
    run = read(Path(sys.argv[1]))
    faults = check(run)
    print("\n".join(faults))
    complete = sum(1 for client in run.clients.values() if client["complete"])
    states = Counter(row["state"] for row in run.ledger.values())
    print(f"{len(run.clients)} requests, {complete} complete; ledger {dict(states)}; {len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
