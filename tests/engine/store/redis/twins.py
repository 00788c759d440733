"""One fleet twice: in memory and on a server. A history is played to both, and after each step they are asked whether they agree.

What must agree: the reply to each who asked; all that is shared (circuits, overrides, looks, limits, blocks, leases, lines), as `view` and
the keys themselves show it; who was woken. Beside that, I2 of DESIGN §10: a report of another generation changes no circuit, and no
generation comes twice, whatever the server loses.
"""

from __future__ import annotations

import itertools
from collections import Counter
from contextlib import contextmanager
from typing import NamedTuple
from uuid import uuid4

from langchain_resilient.engine.circuit import RACED_PROBE_INTERVAL_US, Bucket, CircuitState, Permit, slice_of
from langchain_resilient.engine.effects import NOT_PLAIN, Admit, Later, Queued, Refused, Report, Ticket
from langchain_resilient.engine.quota import MINUTE_US, Scale
from langchain_resilient.engine.store.account import Account
from langchain_resilient.engine.store.redis import wire
from langchain_resilient.engine.store.state import EXPLORE_INTERVAL_US
from tests.engine.store.redis import histories as happens
from tests.engine.store.redis.straight import ServerError
from tests.engine.store.redis.twin_stores import Clock, Mine, Shared, Theirs, reset, shown

S = 1_000_000


class Differ(AssertionError):  # noqa: N818  # they do
    """The twins gave different answers."""


class Pair(NamedTuple):
    """One attempt's tickets."""

    mine: Ticket
    theirs: Ticket


class Waits(NamedTuple):
    """One who stands in a line."""

    ask: Admit
    mine: object
    theirs: object


class Twins:
    """A fleet in both, and a history that happens to it.

    Args:
        history: What happens.
        talk: The connection to the server.
        reached: Counts the cases that occurred.
    """

    def __init__(self, history, talk, reached=None):
        self.history, self.talk = history, talk
        self.reached = Counter() if reached is None else reached
        self.targets = history.targets
        self.clock = Clock(history.start)
        self.chance = 0.5
        self.mine = Mine(self.clock, lambda: self.chance)
        self.theirs = Theirs(talk, uuid4().hex, self.clock, min(history.ahead, history.start), lambda: self.chance)
        self.courier, self.keys = self.theirs._courier, self.theirs._keys
        for target in self.targets:
            for store in (self.mine, self.theirs):
                store._route(target).budget = history.budget
                store._account(target)
        self.attempts = itertools.count(1)
        self.pairs: list[Pair] = []
        self.over: set[int] = set()
        self.waits: list[Waits] = []
        self.asked: list[tuple[Admit, object, object]] | None = None
        """While a batch is filled: what was asked in it."""
        self.generations = {target.route: {0} for target in self.targets}
        self.replica = None
        self.begins_anew = False
        """Whether generations may come again, as the server lost some."""

    def play(self):
        """Let it happen. Raises `Differ`."""
        try:
            self._agree()  # the server's time begins
            for place, step in enumerate(self.history.steps):
                self.chance = place * 0.37 % 1.0
                try:
                    self._one(step)
                    self._agree()
                except Exception as error:
                    kind = Differ if isinstance(error, Differ) else AssertionError
                    raise kind(f"{error}\nat step {place}, {step!r}, of\n{self.history!r}") from error
        finally:
            self._end()

    def _end(self):
        self.courier.waiting.clear()
        self.talk.say("UNLINK", "nothing", *self.courier.keys)
        self.theirs.close()

    def _one(self, step):
        self.begins_anew = False
        self.reached[f"step {type(step).__name__}"] += 1
        getattr(self, f"_{type(step).__name__}")(step)

    def _target(self, number):
        return self.targets[number % len(self.targets)]

    # ----------------------------------------------------------------------------------------------------------- time
    def _Passes(self, step):  # noqa: N802  # named like the step
        self.clock.show(self.clock.shown + step.us)

    def _StepsBack(self, step):  # noqa: N802
        self.clock.show(self.clock.shown - step.us)

    def _Reaches(self, step):  # noqa: N802
        moments = sorted({moment for target in self.targets for moment in self._moments(target)})
        coming = [moment for moment in moments if moment > self.clock.latest]
        if coming:
            # Mostly the next ones: of all those that lie ahead, each goes by when a later one is reached.
            self.clock.reach(coming[step.which % min(len(coming), 4)] + step.off)

    def _moments(self, target):
        """When something of it changes by itself."""
        route, account, now = self.mine._route(target), self.mine._account(target), self.clock.latest
        state, piece = route.circuit, slice_of(target.circuit)
        yield from (
            state.until,
            state.raced_at + min(RACED_PROBE_INTERVAL_US, int(target.circuit.recovery_timeout * S)),
        )
        yield from [permit.lapses for permit in state.permits]
        yield from ((now // piece + 1) * piece, account.blocked_until, route.explored_at + EXPLORE_INTERVAL_US)
        yield from account.tats.values()
        yield from account.leases.values()
        yield from [place.lapses for place in account.line]
        if account.scale.permille < 1000:
            yield account.scale.since + MINUTE_US

    # ------------------------------------------------------------------------------------------------------ admission
    def _Asks(self, step):  # noqa: N802
        chosen = tuple(dict.fromkeys([self._target(number) for number in step.targets]))
        manner, pays = step.manner, step.pays
        if self.asked is not None:
            # What a process knows by itself (its budget, who is silent) it knows only once the batch is back.
            manner, pays = "all", False
        for _ in range(step.times):
            self._ask(
                Admit(
                    next(self.attempts), chosen, step.stream, step.lane, *step.tokens, pays, step.patience, step.races,
                    step.looks_early, None if step.explore is None else self._target(step.explore), manner == "spare",
                    plainly=manner == "plain",
                )
            )  # fmt: skip

    def _ask(self, ask):
        mine, theirs = self.mine.admit(ask), self.theirs.admit(ask)
        if self.asked is not None:
            self.asked.append((ask, mine, theirs))
            return
        self._answered(ask, mine, theirs)

    def _answered(self, ask, mine, theirs):
        theirs = theirs.result() if isinstance(theirs, Later) else theirs
        self._count_reply(ask, mine)
        if isinstance(mine, Queued) and isinstance(theirs, Queued):
            self._same("place", (mine.place.attempt, mine.place.target, mine.seconds),
                       (theirs.place.attempt, theirs.place.target, theirs.seconds))  # fmt: skip
            self.waits = [wait for wait in self.waits if wait.ask.attempt != ask.attempt]
            self.waits.append(Waits(ask, mine.place, theirs.place))
            return
        self._same("reply", mine, theirs)
        if isinstance(mine, Ticket):
            self.pairs.append(Pair(mine, theirs))
            self.waits = [wait for wait in self.waits if wait.ask.attempt != ask.attempt]

    def _AsksAgain(self, step):  # noqa: N802
        if not self.waits:
            return
        wait = self.waits[step.which % len(self.waits)]
        before = len(self.waits)
        self._ask(wait.ask._replace(patience=step.patience))
        if len(self.waits) == before and self.waits[-1].ask.attempt != wait.ask.attempt:
            self._leave(wait)  # it was refused, and goes on without a place
        self.reached["asked again: " + ("granted" if len(self.waits) < before else "still waits")] += 1

    def _Leaves(self, step):  # noqa: N802
        if self.waits:
            self._leave(self.waits[step.which % len(self.waits)])

    def _leave(self, wait):
        self.waits.remove(wait)
        self.mine.leave(wait.mine)
        self.theirs.leave(wait.theirs)

    # -------------------------------------------------------------------------------------------------------- reports
    def _Opens(self, step):  # noqa: N802
        streams = [pair for pair in self._recent() if pair.mine.stream]
        if streams:
            pair = streams[step.which % len(streams)]
            with self._judged(pair, "opened"):
                self.mine.opened(pair.mine, step.seconds)
                self.theirs.opened(pair.theirs, step.seconds)

    def _Ends(self, step):  # noqa: N802
        pairs = self._recent()
        if not pairs:
            return
        self._settle(pairs[step.which % len(pairs)], step.report)

    def _recent(self):
        """The last attempts, those under way first."""
        live = [pair for pair in self.pairs if pair.mine.attempt not in self.over]
        ended = [pair for pair in self.pairs[-4:] if pair.mine.attempt in self.over]
        return live[-9:] + ended

    def _settle(self, pair, report):
        attempt = pair.mine.attempt
        self.reached["settled twice" if attempt in self.over else f"settled {report.kind or 'ok'}"] += 1
        self.reached["never sent"] += report.never_sent
        with self._judged(pair, "settled"):
            self.over.add(attempt)
            self.mine.settle(pair.mine, report)
            self.theirs.settle(pair.theirs, report)

    @contextmanager
    def _judged(self, pair, what):
        """I2: what an attempt of another generation reports changes no circuit."""
        route = self.mine._route(pair.mine.target)
        before = route.circuit
        late = pair.mine.generation != before.generation
        yield
        after = route.circuit
        if late:
            self.reached[f"{what} late"] += 1
            self._same("circuit after a late report", before, after)
        if after.phase != before.phase:
            self.reached[f"{before.phase} to {after.phase}"] += 1
        elif after.permits != before.permits and after.successes == before.successes:
            self.reached[f"permit back {what}"] += 1
        elif after.successes > before.successes:
            self.reached[f"one success more {what}"] += 1

    def _Renews(self, step):  # noqa: N802
        pairs = self._recent()
        if pairs:
            pair = pairs[step.which % len(pairs)]
            self.mine.renew(pair.mine, step.seconds)
            self.theirs.renew(pair.theirs, step.seconds)

    def _Crashes(self, step):  # noqa: N802
        pairs = self._recent()
        if pairs:
            self.pairs.remove(pairs[step.which % len(pairs)])

    def _Serves(self, step):  # noqa: N802
        before = len(self.pairs)
        with self._batch():
            self._Asks(
                happens.Asks(
                    (step.target,), "all", step.times, step.stream, "interactive", (10, 20), False, 0.0, False, False, None
                )
            )  # fmt: skip
        with self._batch():
            for pair in self.pairs[before:]:
                self._end_of(pair, step)

    def _Slackens(self, step):  # noqa: N802
        tardy = Report(seconds=0.9, first_token=0.9, whole=step.stream)
        self._Serves(happens.Serves(step.target, 22, tardy, step.stream))
        self._Asks(
            happens.Asks(
                (step.target,), "spare", 1, step.stream, "interactive", (10, 20), False, 0.0, False, False, None
            )
        )

    def _Recovers(self, step):  # noqa: N802
        ill = [target for target in self.targets if self.mine._route(target).circuit.phase != "closed"]
        target = (ill or self.targets)[step.target % len(ill or self.targets)]
        state = self.mine._route(target).circuit
        if state.phase == "open":
            self.clock.reach(max(self.clock.latest, state.until))
        request = happens.Asks(
            (self.targets.index(target),),
            "all",
            1,
            step.stream,
            "interactive",
            (10, 20),
            False,
            0.0,
            step.races,
            False,
            None,
        )
        for _ in range(step.times):
            before = len(self.pairs)
            self._Asks(request)
            for pair in self.pairs[before:]:
                self._end_of(pair, step)

    def _end_of(self, pair, step):
        first_token = step.report.first_token
        if step.stream and first_token is not None:
            with self._judged(pair, "opened"):
                self.mine.opened(pair.mine, first_token)
                self.theirs.opened(pair.theirs, first_token)
        self._settle(pair, step.report)

    def _Together(self, step):  # noqa: N802
        with self._batch():
            for each in step.steps:
                self._one(each)

    @contextmanager
    def _batch(self):
        """What happens in it goes to the server in one batch."""
        self.asked = asked = []
        with self.courier.held():
            yield
        self.asked = None
        for ask, mine, later in asked:
            theirs = later.result()
            if isinstance(mine, Ticket) and isinstance(theirs, Ticket):
                # Whether streams finish a process knows by itself too: when the reply is there.
                theirs = theirs._replace(finishes=mine.finishes)
            self._answered(ask, mine, theirs)

    # --------------------------------------------------------------------------------------------- people and servers
    def _Overrides(self, step):  # noqa: N802
        self.mine.override(self._target(step.target), step.mode)
        self.theirs.override(self._target(step.target), step.mode)

    def _Resets(self, step):  # noqa: N802
        target = self._target(step.target)
        before, blocked = (
            self.mine._route(target).circuit.phase,
            self.mine._account(target).blocked_until > self.clock.latest,
        )
        self.reached[f"reset {before}"] += 1
        self.reached[f"block {'lifted' if step.blocks else 'kept'}"] += blocked
        self.mine.reset(target, blocks=step.blocks)
        self.theirs.reset(target, blocks=step.blocks)

    def _FlushesScripts(self, step):  # noqa: N802
        self.talk.say("SCRIPT", "FLUSH")

    def _Loses(self, step):  # noqa: N802
        lost = self.targets if step.what == "all" else (self._target(step.target),)
        for target in lost:
            self._lose(target, step.what)
        if step.what in {"all", "meta"}:
            self.talk.say("UNLINK", self.keys.meta)
        self.reached[f"lost {step.what}"] += 1
        self._after_loss(0 if step.what in {"all", "meta"} else self.clock.skew)

    def _lose(self, target, what):
        route, account, leases, line = self.keys.of(target)
        mine, his = self.mine._account(target), self.mine._route(target)
        if what in {"route", "all"}:
            self.talk.say("UNLINK", route)
            his.circuit, his.override, his.explored_at = CircuitState(), None, -EXPLORE_INTERVAL_US
        if what in {"account", "all"}:  # it says whether anybody stands in the line
            self.talk.say("UNLINK", account, line)
            reset(mine)
        if what in {"leases", "all"}:
            self.talk.say("UNLINK", leases)
            mine.leases.clear()
        if what == "line":
            self.talk.say("UNLINK", line)
            mine.line.clear()
            self.courier.tell(wire.leave(self.keys, target, "nobody:0|0"))  # the next to look sees that it is gone

    def _Remembers(self, step):  # noqa: N802
        kept = [self.keys.meta, *{key for target in self.targets for key in self.keys.of(target)}]
        dumps = zip(kept, self.talk.send(*[("DUMP", key) for key in kept]), strict=True)
        routes = {route: (at.circuit, at.override, at.explored_at) for route, at in self.mine._routes.items()}
        accounts = {}
        for name, at in self.mine._accounts.items():
            accounts[name] = {field: getattr(at, field) for field in Account.__slots__}
            accounts[name].update(tats=dict(at.tats), leases=dict(at.leases), line=list(at.line))
        self.replica = ([(key, dump) for key, dump in dumps if dump is not None], routes, accounts, self.clock.skew)

    def _FailsOver(self, step):  # noqa: N802
        if self.replica is None:
            return
        dumps, routes, accounts, skew = self.replica
        kept = [self.keys.meta, *{key for target in self.targets for key in self.keys.of(target)}]
        self.talk.send(("UNLINK", *kept), *[("RESTORE", key, 0, dump) for key, dump in dumps])
        for name, route in self.mine._routes.items():
            route.circuit, route.override, route.explored_at = routes.get(
                name, (CircuitState(), None, -EXPLORE_INTERVAL_US)
            )
        for name, account in self.mine._accounts.items():
            for field, value in accounts[name].items():
                if field == "line":
                    account.line.clear()
                    account.line.extend(value)
                else:
                    setattr(account, field, dict(value) if isinstance(value, dict) else value)
        self.reached["failed over"] += 1
        self._after_loss(skew)

    def _after_loss(self, skew):
        """It took a second, and the new server's clock is right; the process connects anew and reads all again."""
        self.begins_anew = True
        self.clock.anew(skew)
        self.theirs._heard(b"lost")
        for wait in self.waits:  # who waits is called, as a call may have been among what was lost
            wait.mine.woken = True

    # ------------------------------------------------------------------------------------------------------ agreement
    @staticmethod
    def _same(what, mine, theirs):
        if mine != theirs:
            raise Differ(f"{what}: in memory {shown(mine, theirs)}, on the server {shown(theirs, mine)}")

    def _agree(self):
        for target, theirs in self._on_server():
            mine = self._in_memory(target)
            if mine != theirs:
                for field in Shared._fields:
                    self._same(f"{target.account} {field}", getattr(mine, field), getattr(theirs, field))
            self._is_new(target.route, mine.circuit.generation)
        self.courier.deliver()  # the news: they came before the view
        self._same("woken", *zip(*[(wait.mine.woken, wait.theirs.woken) for wait in self.waits], strict=True)
                   if self.waits else ((), ()))  # fmt: skip

    def _is_new(self, route, generation):
        """I2: no generation comes twice; one that was lost and is remembered again is the old one."""
        seen = self.generations[route]
        if generation != getattr(self, f"_last_{route}", 0):
            if generation in seen and not self.begins_anew:
                raise Differ(f"generation {generation} of {route} comes a second time")
            seen.add(generation)
            setattr(self, f"_last_{route}", generation)

    def _in_memory(self, target):
        route, account, now = self.mine._route(target), self.mine._account(target), self.clock.latest
        return Shared(
            route.circuit, route.override, route.explored_at, account.scale, account.blocked_until, account.blocked_reason,
            account.throttles, account.throttled_at, account.forbidden, {name: tat for name, tat in account.tats.items() if tat},
            {self._named(attempt): lapses for attempt, lapses in account.leases.items() if lapses > now},
            [(self._named(place.attempt), place.lapses) for place in account.line],
        )  # fmt: skip

    def _named(self, attempt):
        return self.theirs._named(attempt)

    def _on_server(self):
        """What is known of each target, and who runs and stands in line there, as the keys have it."""
        limited = [target for target in self.targets if target.dimensions or target.limits.concurrency]
        asked = []
        for target in limited:
            leases, line = self.keys.of(target)[2:]
            asked += [("LRANGE", line, 0, -1), ("ZRANGE", leases, 0, -1, "WITHSCORES")]
        view = self.courier.command([wire.view(self.keys, self.targets)])
        seen, *kept = self.talk.send(("EVALSHA", self.courier.sha, *view), *asked)
        if isinstance(seen, ServerError):  # the script was flushed
            seen = self.talk.say("EVAL", self.courier.script, *view)
        found = {target.account: (kept[2 * place], kept[2 * place + 1]) for place, target in enumerate(limited)}
        for target, row in zip(self.targets, seen[2], strict=True):
            yield target, self._read(row, *found.get(target.account, ((), ())))

    def _read(self, row, line, leases):
        words = [wire.text(item) for item in row[:-1]]
        number = [int(word) if word.lstrip("-").isdigit() else 0 for word in words]
        buckets = tuple(Bucket(*map(int, entry.split(","))) for entry in words[3].split(";") if entry)
        permits = []
        for entry in filter(None, words[7].split(";")):
            name, _, lapses = entry.partition(",")
            permits.append(Permit(self._attempt(name), int(lapses)))
        circuit = CircuitState(
            words[0], number[1], number[2], buckets, number[4], number[5], number[6], tuple(permits), number[8],
            bool(number[9]), bool(number[10]),
        )  # fmt: skip
        stands = [entry.decode().partition("|") for entry in line]
        return Shared(
            circuit, words[11] or None, number[13], Scale(number[14], number[15]), number[16], words[17], number[18],
            number[19], number[20], {name: int(tat) for name, tat in zip(wire.DIMENSIONS, row[-1], strict=True) if int(tat)},
            {name.decode(): int(lapses) for name, lapses in leases if lapses > self.clock.latest},
            [(name, int(lapses)) for name, _, lapses in stands],
        )  # fmt: skip

    def _attempt(self, name):
        process, _, attempt = name.partition(":")
        assert process == self.theirs._process
        return int(attempt)

    # -------------------------------------------------------------------------------------------------------- counting
    def _count_reply(self, ask, reply):
        seen = self.reached
        if isinstance(reply, Ticket):
            seen["granted"] += 1
            for name in ("probe", "raced", "leased", "half_opens", "to_end", "passed", "finishes"):
                seen[name] += bool(getattr(reply, name))
            seen["inline probe"] += reply.probe and not reply.raced
            seen["explored"] += reply.raced and not reply.probe
            seen["in spite of slowness"] += not reply.probe and self.mine._route(reply.target).circuit.for_slowness
            seen["charged"] += any(reply.charged)
        elif isinstance(reply, Queued):
            line = self.mine._account(reply.place.target).line
            seen[
                f"queued {('first', 'second')[min(line.index(reply.place), 1)] if reply.place in line else 'gone'}"
            ] += 1
        elif reply is NOT_PLAIN:
            seen["not plain"] += 1
        elif isinstance(reply, Refused):
            seen["rejected"] += reply.rejected is not None
            for refusal in reply.refusals:
                seen[f"refused {refusal.reason}"] += 1
