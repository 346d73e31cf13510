"""Faults that are planted into a copy of the hub: the model must find every one (`make prove-hub`)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
SEEDS = 1000
LIMIT_SECONDS = 60.0


@dataclass(frozen=True)
class Mutant:
    """In `module` the text `old`, which stands there once, becomes `new`."""

    name: str
    module: str
    old: str
    new: str

    def run(self, folder: Path) -> str:
        """Run the fuzzer on a copy of the product with this fault; returns what it found, "" if nothing."""
        shutil.copytree(REPOSITORY / "heliosd", folder / "heliosd")
        shutil.copytree(REPOSITORY / "tests" / "support", folder / "tests" / "support")
        path = folder / "heliosd" / self.module
        source = path.read_text()
        assert source.count(self.old) == 1, f"{self.name}: {self.old!r} stands {source.count(self.old)} times"
        path.write_text(source.replace(self.old, self.new))
        code = f"from tests.support.hub_fuzzer import first_broken; first_broken(range({SEEDS}))"
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(folder)},
            capture_output=True,
            text=True,
            timeout=LIMIT_SECONDS,
            check=False,
        )
        return done.stdout.strip()


QUEUE, DELIVERY, PUBLISHER = "hub/send_queue.py", "hub/delivery.py", "hub/publisher.py"
FLIGHTS = "hub/flights.py"
MUTANTS = (
    Mutant(
        "an event that is dropped is not named",
        QUEUE,
        "                self._remove(key)\n                self._drop(message)",
        "                self._remove(key)",
    ),
    Mutant(
        "a gap ends one too early", QUEUE, "self.from_seq, later.to_seq,", "self.from_seq, later.to_seq - 1,"
    ),
    Mutant(
        "a replay begins one too early",
        "protocol/history.py",
        "return Excerpt(after, MAX",
        "return Excerpt(after - 1, MAX",
    ),
    Mutant(
        "a replay is not filtered",
        "protocol/history.py",
        "mine = event.filtered_for(self._subscription)",
        "mine = event",
    ),
    Mutant(
        "a deletion removes no value that waits",
        QUEUE,
        "without_metrics(self._messages[CUSTOM_METRICS], deleted)",
        "self._messages[CUSTOM_METRICS]",
    ),
    Mutant(
        "a subscription changes inside of a broadcast",
        "hub/sessions.py",
        "isinstance(command, AskStatus | Subscribe)",
        "isinstance(command, AskStatus)",
    ),
    Mutant(
        "a client joins inside of a broadcast",
        PUBLISHER,
        "        if self.publishing:\n            self._at_boundary",
        "        if False:\n            self._at_boundary",
    ),
    Mutant("of a metric the older value is kept", QUEUE, "merged(older, message)", "merged(message, older)"),
    Mutant(
        "of a latency the older value is kept",
        QUEUE,
        "                message = merged(older, message)",
        "                message = merged(older, message)\n"
        "            elif older is not None:\n                message = older",
    ),
    Mutant(
        "a value that is held follows a status",
        DELIVERY,
        "            client.paced[name].held = None",
        "            pass",
    ),
    Mutant(
        "a value that is held follows the deletion of its metric",
        "hub/value_throttle.py",
        "paced.held = without_metrics(paced.held, deleted)",
        "pass",
    ),
    Mutant(
        "what was held goes before the answer",
        DELIVERY,
        "        client.queue.answers_first()",
        "        pass",
    ),
    Mutant(
        "events are counted as dropped twice",
        "hub/client.py",
        "lost, self.queue.lost = self.queue.lost, 0",
        "lost = self.queue.lost",
    ),
    Mutant(
        "an event stream is not woken",
        DELIVERY,
        "    if client.waker is not None or client.in_flight:\n        client.fall_behind()",
        "    if client.waker is not None or client.in_flight:\n        client.behind = True",
    ),
    Mutant(
        "a status that was asked for is lost",
        QUEUE,
        "        elif question is not UNSET:",
        "        elif False:",
    ),
    Mutant(
        "a welcome is dropped by a full queue",
        QUEUE,
        "(epoch or message.kind is not Kind.BOUNDARY)",
        "True",
    ),
    Mutant(
        "a full queue is settled inside of a broadcast", PUBLISHER, "elif self._publishing:", "elif False:"
    ),
    Mutant(
        "the descriptor of a client that left is written to",
        "hub/recipients.py",
        "        self.fds[client.place] = NOBODY\n",
        "",
    ),
    Mutant(
        "a client in flight is written to",
        DELIVERY,
        " or client.waker is not None or client.in_flight):",
        " or client.waker is not None):",
    ),
    Mutant(
        "a write pump starts in a flight",
        "hub/connections.py",
        "client.wants_pump and not client.in_flight",
        "client.wants_pump",
    ),
    Mutant(
        "what came during a flight is left",
        FLIGHTS,
        "self._see_to([*self._keep_rests(part, frames)], touched)",
        "self._see_to([*self._keep_rests(part, frames)], [])",
    ),
    Mutant(
        "what a socket did not take in a flight is lost",
        FLIGHTS,
        "                keep_rest(client, frames, taken)",
        "                pass",
    ),
    Mutant(
        "a client that leaves in a flight is counted as not served",
        "hub/recipients.py",
        "        self.served = stop\n        self._in_flight",
        "        self._in_flight",
    ),
    Mutant(
        "a status has metrics that its subscription does not let through",
        "hub/status_messages.py",
        "moment.status(subscription.metrics)",
        "moment.status(True)",
    ),
    Mutant(
        "a question is answered by the status of another one",
        "hub/sessions.py",
        "client.subscription, fresh=True",
        "client.subscription",
    ),
    Mutant(
        "what waits is not narrowed by a new subscription",
        DELIVERY,
        "        client.queue.narrow(subscription, events=client.held)",
        "        pass",
    ),
)
