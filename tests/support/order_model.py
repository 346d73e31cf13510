"""What one client of the hub may be sent, and in which order: docs/protocol.md, "Order", as a program.

Plain Python: what the server did goes in (`Server`), and what one client got (`ClientModel.receive`). A broken rule
is a `Violation`. Every change of the server has a number, its moment. In the tests' messages a metric's `value` is
the moment at which it was set, and statuses and values have a `moment`: so older and newer are known apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .client_record import EVENTS, WHOLE, Filter, Question, Stretch, Violation, let_through, moment_of
from .server_record import Event, Server

Message = Mapping[str, Any]


class ClientModel:
    """Follows one connection. Its picture of the cluster is `leader`, `peers` and `metrics`."""

    def __init__(
        self, server: Server, wanted: Filter, epoch: str, at: int, *, resumes: bool = False, after: int = -1
    ) -> None:
        """It joined when event `at` of `epoch` was the newest; if it `resumes`, `after` is the last that it has."""
        self._server = server
        self._epoch = epoch
        self._at = at
        """Everything up to this event is settled: received, named by a gap, or not wanted."""
        self._resumes, self._after = resumes, after
        self._stretches = [Stretch(epoch, -1, wanted)]
        self._questions: dict[Any, Question] = {}
        self._moments: dict[str, int] = {}
        """The least moment that a value of each type or metric may have."""
        self._wants_since_status: list[Filter] = [wanted]
        self._selected: Filter = wanted
        """What the last status was cut by."""
        self._status_due = False
        self._held_at: tuple[str, int, int] | None = None
        """Epoch, newest event and newest moment when it was held."""
        self._joined_moment = server.moment
        self.started = False
        self.named = self.of_earlier_epochs = 0
        """Events that a gap named, and those that a new epoch made meaningless."""
        self.exact = True
        """False once it subscribed while it was held: what it lost is not counted then."""
        self.leader, self.peers, self.metrics = "", set[str](), dict[str, int]()

    def ask(self, client_id: object, question: Question) -> None:
        """A question took effect; its answer is due."""
        self._questions[client_id] = question

    def narrow(self, on_the_way: int) -> None:
        """A subscription takes effect while so many messages are on the way to the client."""
        for question in self._pending()[-1:]:
            question.on_the_way = on_the_way

    def hold(self, epoch: str, at: int) -> None:
        """Its token has ended; `at` is the newest event then."""
        self._held_at = epoch, at, self._server.moment
        self.exact = self.exact and not self._pending()
        for question in self._questions.values():
            question.held = True

    def receive(self, message: Message) -> None:
        """One message, in the order of the wire."""
        kind = message["type"]
        if not self.started and kind != "welcome" and (kind != "status" or self._resumes):
            raise Violation(f"the first message is {kind}")
        self.started = True
        for question in self._pending():
            question.on_the_way -= 1
        if self._held_at is not None and moment_of(message) > self._held_at[2]:
            raise Violation(f"{kind} of moment {moment_of(message)} while it was held")
        if self._status_due and (kind in EVENTS or kind in WHOLE):
            raise Violation(f"{kind} before the status that follows a gap")
        if "seq" in message:
            self._event(message["seq"], Event(kind, message["data"]))
        elif kind in WHOLE or kind == "custom_metrics":
            self._value(kind, message["data"])
        elif kind == "gap":
            self._gap(message["data"])
        elif kind == "status":
            self._status(message["data"])
        elif kind == "welcome":
            self._welcome(message["data"])
        if "id" in message or kind in {"subscribed", "authenticated"}:
            self._answer(kind, message)

    def _answer(self, kind: str, message: Message) -> None:
        """Answers come in the order of their questions. Only a status of a held client may be overtaken."""
        client_id = message.get("id")
        if client_id not in self._questions:
            raise Violation(f"{kind} {client_id} answers no question, or one that was answered")
        for earlier, question in list(self._questions.items()):
            if earlier == client_id:
                break
            if not (question.kind == "status" and question.held):
                raise Violation(f"{kind} {client_id} before the answer to {question.kind} {earlier}")
        question = self._questions.pop(client_id)
        if kind not in {question.kind, "error"}:
            raise Violation(f"{kind} answers {question.kind}")
        if kind == "status" and message["data"]["moment"] < question.moment:
            raise Violation(f"status of moment {message['data']['moment']} answers one of {question.moment}")
        if kind == "authenticated":
            self._held_at = None
        if kind == "subscribed" and question.subscription is not None:
            self._subscribed(question, question.subscription)

    def _subscribed(self, question: Question, wanted: Filter) -> None:
        """The boundary of a subscription: all events of the old one came before it, if the client is not held."""
        if not question.held and question.epoch == self._epoch:
            self._settle(question.at, "subscribed")
        self.exact = self.exact and not question.held
        self._stretches.append(Stretch(question.epoch, question.at, wanted, question.held))
        self._wants_since_status.append(wanted)

    def _event(self, seq: int, event: Event) -> None:
        """In order of `seq`, none left out, none twice, cut to the subscription."""
        if seq <= self._at:
            raise Violation(f"event {seq} after {self._at}")
        self._settle(seq - 1, f"event {seq}")
        happened = self._server.events(self._epoch).get(seq)
        if happened is None or happened.data is None or happened.type != event.type:
            raise Violation(f"event {seq} did not happen so")
        if self._held_at is not None and self._before(*self._held_at[:2], seq):
            raise Violation(f"event {seq} while it was held")
        for question in self._pending():
            if self._before(question.epoch, question.at, seq) and not question.held:
                raise Violation(f"event {seq} before subscription {question.at} is answered")
        if event.data not in (self._cut(seq, happened), self._cut(seq, happened, on_the_way=True)):
            raise Violation(f"event {seq} is not what the subscription lets through")
        self._at = seq
        self._apply(event, happened.moment)

    def _gap(self, gap: Mapping[str, Any]) -> None:
        """In the place of what it names; never of two gaps; counted as the subscription would let it through."""
        first, last = gap["from_seq"], gap["to_seq"]
        if first <= self._at:
            raise Violation(f"gap from {first} after {self._at}")
        self._settle(first - 1, f"gap from {first}")
        before, wanted = (
            [seq for seq, _ in self._wanted(first, last, on_the_way=on)] for on in (True, False)
        )
        named = [first, last, gap["dropped"]]
        if self.exact and named not in ([*seqs[:1], *seqs[-1:], len(seqs)] for seqs in (wanted, before)):
            raise Violation(f"gap {dict(gap)} for {wanted}")
        self._at = last
        self.named += len(wanted)
        self._status_due = True

    def _status(self, data: Mapping[str, Any]) -> None:
        """After every event up to `as_of_seq`, before any later one, and never older than anything before it."""
        as_of = data["as_of_seq"]
        if as_of < self._at:
            raise Violation(f"status as of {as_of} after event {self._at}")
        self._settle(as_of, f"status as of {as_of}")
        self._at, self._status_due = as_of, False
        if data["moment"] < self._moments.get("status", 0):
            raise Violation(f"status of moment {data['moment']} after one of {self._moments['status']}")
        self._selected = self._selection(data["metrics"], data["all_metrics"])
        contained = dict.fromkeys(["status", "status_update"], data["moment"]) | dict(data["metrics"])
        elsewhere = {
            kind: moment
            for kind, moment in self._moments.items()
            if kind in WHOLE or not self._selected("custom_metrics", {kind: None})
        }
        self._moments = elsewhere | contained
        # A held client may get the answer to a subscription before a status from the time before it.
        before = [s for s in self._stretches if self._before(s.epoch, s.at, as_of + (not s.narrows))]
        self._wants_since_status = [s.wanted for s in self._stretches[len(before) - 1 :]]
        self.leader, self.peers, self.metrics = data["leader"], set(data["peers"]), dict(data["metrics"])

    def _selection(self, metrics: Mapping[str, int], all_metrics: Mapping[str, int]) -> Filter:
        """The subscription by which a status was cut: that of its time, an earlier one if it was overtaken while
        the client was held, or one whose answer is still to come. What all let through that it may be."""
        first = len(self._stretches) - 1
        while first > 0 and self._stretches[first].narrows:
            first -= 1
        wants = [stretch.wanted for stretch in self._stretches[first:]]
        wants += [question.subscription for question in self._pending() if question.subscription]
        fitting = [wanted for wanted in wants if (wanted("custom_metrics", all_metrics) or {}) == metrics]
        if not fitting:
            raise Violation(f"status with {dict(metrics)} is not what the subscription lets through")
        return lambda kind, data: data if all(wanted(kind, data) for wanted in fitting) else None

    def _least(self, name: str) -> int:
        """The least moment that this metric may have; one less than that of the status which did not have it."""
        shown = self._moments.get("status", 0) if self._selected("custom_metrics", {name: None}) else 0
        return self._moments.get(name, shown)

    def _value(self, kind: str, data: Mapping[str, Any]) -> None:
        """Never older than a value before it, or a status that contains it; none of a metric after its deletion."""
        wants = [self._stretches[-1].wanted]
        wants += [q.subscription for q in self._pending() if q.subscription and q.on_the_way < 0]
        if any(wanted(kind, data) != data for wanted in wants):
            raise Violation(f"{kind} {dict(data)} is not what the subscription lets through")
        if kind in WHOLE:
            if data["moment"] < self._moments.get(kind, 0):
                raise Violation(f"{kind} of moment {data['moment']} after {self._moments[kind]}")
            self._moments[kind] = data["moment"]
            return
        for name, view in data.items():
            # A metric that the status would have had was set later than the status, or does not exist any more.
            least = self._least(name) + (name not in self._moments)
            if view["value"] < least:
                raise Violation(f"value of {name} of moment {view['value']} after {least}")
            self._moments[name] = self.metrics[name] = view["value"]

    def _welcome(self, data: Mapping[str, Any]) -> None:
        """The first message of a client that resumes; on an open connection the end of an epoch."""
        if self._resumes and data["epoch"] != self._epoch:
            self._resumes = self.exact = False  # what it was to be sent of the epoch that it joined is lost
        if self._resumes:
            self._resumes = False
            self._at = data["seq"]
            if data["recovered"] and self._after >= 0:
                self._at = self._after
                if (replayed := len(list(self._wanted(self._at + 1, data["seq"])))) != data["replayed"]:
                    raise Violation(f"welcome announces {data['replayed']} events, not {replayed}")
            return
        while self._epoch != data["epoch"]:
            ended = self._wanted(self._at + 1, max(self._server.events(self._epoch), default=0))
            self.of_earlier_epochs += len(list(ended))
            epochs = list(self._server.starts)
            self._epoch = epochs[epochs.index(self._epoch) + 1]
            self._at = self._server.starts[self._epoch]
        if self._at != data["seq"]:
            raise Violation(f"welcome says {data['seq']}, not {self._at}")
        self._status_due = True

    def check_quiet(self) -> None:
        """Nothing waits any more: all is settled, answered, and the picture is the server's."""
        self._settle(max(self._server.events(self._epoch), default=0), "silence")
        if self._questions or self._status_due or not self.started:
            raise Violation(f"due: {self._questions}, status {self._status_due}, start {not self.started}")
        wants = self._wants_since_status
        if all(wanted("state_change", None) for wanted in wants) and self.leader != self._server.leader:
            raise Violation(f"leader {self.leader!r}, not {self._server.leader!r}")
        if all(wanted("peer_change", None) for wanted in wants) and self.peers != self._server.peers:
            raise Violation(f"peers {self.peers}, not {self._server.peers}")
        for kind, newest in self._server.ticks.items():  # it may have been dropped; a status follows then
            had = max(self._joined_moment, *(self._moments.get(name, 0) for name in (kind, "status")))
            if had < newest and all(wanted(kind, None) for wanted in wants):
                raise Violation(f"{kind} of moment {had}, not {newest}")
        for name in {*self.metrics, *self._server.metrics}:
            mine, real = self.metrics.get(name), self._server.metrics.get(name)
            if mine != real and all(wanted("custom_metrics", {name: None}) for wanted in wants):
                raise Violation(f"metric {name} of moment {mine}, not {real}")

    def _before(self, epoch: str, at: int, seq: int) -> bool:
        """Whether event `at` of `epoch` lies before event `seq` of the epoch that the client is in."""
        epochs = list(self._server.starts)
        return (epochs.index(epoch), at) < (epochs.index(self._epoch), seq)

    def _settle(self, seq: int, what: str) -> None:
        """No wanted event up to `seq` is missing before `what`."""
        if missing := [number for number, _ in self._wanted(self._at + 1, seq)]:
            raise Violation(f"{what} without event {missing[0]}")
        self._at = max(self._at, seq)

    def _wanted(self, first: int, last: int, *, on_the_way: bool = False) -> Iterator[tuple[int, Event]]:
        for seq in range(first, last + 1):
            event = self._server.events(self._epoch).get(seq)
            if event is not None and self._cut(seq, event, on_the_way=on_the_way) is not None:
                yield seq, event

    def _pending(self) -> list[Question]:
        """Subscriptions that are in force and whose answer is still to come."""
        return [q for q in self._questions.values() if q.subscription is not None]

    def _cut(self, seq: int, event: Event, *, on_the_way: bool = False) -> Any:
        """What the subscriptions let through of an event: the one of its time, and those that narrowed it. With
        `on_the_way` only those that were answered narrow it: it may have been on the wire before."""
        stretches = [*self._stretches]
        for q in self._pending():
            assert q.subscription is not None
            stretches.append(Stretch(q.epoch, q.at, q.subscription, q.held and not on_the_way))
        before = [s.wanted for s in stretches if self._before(s.epoch, s.at, seq)]
        filters = [before[-1], *(s.wanted for s in stretches[len(before) :] if s.narrows)]
        if event.data is None:
            return True if all(any(wanted(name, None) for name in EVENTS) for wanted in filters) else None
        return let_through(filters, event.type, event.data)

    def _apply(self, event: Event, moment: int) -> None:
        data = event.data or {}
        match event.type:
            case "state_change":
                self.leader = data["leader"]
            case "peer_change":
                (self.peers.add if data["event_type"] == "added" else self.peers.discard)(data["peer_id"])
            case _:
                for name, view in data.items():
                    least = moment + 1 if view is None else view["value"]
                    self._moments[name] = max(least, self._least(name))
                    if view is None:
                        self.metrics.pop(name, None)
                    else:
                        self.metrics[name] = view["value"]
