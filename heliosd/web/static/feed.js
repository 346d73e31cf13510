/** The live connection: keeps one WebSocket open, goes on where it stopped, and says at every moment how it stands. */

import { delaySeconds } from "./backoff.js";
import { Refused } from "./session.js";

/** @typedef {import("./session.js").Session} Session */
/** @typedef {{type: string, timestamp?: string, seq?: number, provisional?: boolean, data?: any}} Message */
/** @typedef {"connecting" | "live" | "reconnecting" | "signed-out" | "not-allowed" | "disconnected"} StateName */
/**
 * @typedef {object} FeedState
 * @property {StateName} name
 * @property {string} reason a sentence for people, or ""
 * @property {number} retryAt when the next attempt is due, on the clock of `performance.now()`; 0 for none
 */
/**
 * @typedef {object} CloseMeaning what a close code means
 * @property {StateName} then
 * @property {string} reason
 * @property {number} [waitSeconds] at least so long before the next attempt
 */

const SETTLED_SECONDS = 10;
const QUIET_SECONDS = 10;
const PONG_SECONDS = 15;
/** An answer that takes longer is missed: what is shown is then no longer taken for live. */
const LATE_SECONDS = 2;
/** A token of less than a minute is said to expire as soon as it is new. */
const RENEW_SECONDS = 1;

/** @type {Record<number, CloseMeaning>} */
const CLOSE_CODES = {
  1001: { then: "reconnecting", reason: "The daemon is stopping." },
  1011: { then: "reconnecting", reason: "The daemon had an internal error." },
  4000: { then: "disconnected", reason: "An administrator disconnected this page." },
  4401: { then: "signed-out", reason: "Your session has ended. Log in again." },
  4403: { then: "not-allowed", reason: "Your account is no longer allowed to watch this cluster." },
  4408: { then: "reconnecting", reason: "This page was too slow to keep up." },
  4429: { then: "reconnecting", reason: "This page sent too many messages.", waitSeconds: 30 },
};
/** @type {CloseMeaning} */
const LOST = { then: "reconnecting", reason: "The connection was lost." };

/** @type {Record<"expired" | "forbidden" | "allowed" | "unreachable", CloseMeaning>} */
const REFUSALS = {
  expired: CLOSE_CODES[4401],
  forbidden: {
    then: "not-allowed",
    reason: "This account may not watch the cluster: it lacks cluster:watch.",
  },
  allowed: {
    then: "reconnecting",
    reason:
      "The daemon is up but refuses the live connection: it is full, or server.allowed_origins lacks this address.",
  },
  unreachable: { then: "reconnecting", reason: "The daemon does not answer." },
};

export class Feed {
  /** @type {WebSocket | null} */
  #socket = null;
  /** Counts what was begun: whatever belongs to an older attempt is not heard any more. */
  #attempt = 0;
  #failures = 0;
  #liveSince = 0;
  #pingedAt = 0;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #retry;
  /** @type {FeedState} */
  state = { name: "signed-out", reason: "", retryAt: 0 };
  /** When the last message came, on the clock of `performance.now()`. */
  heardAt = 0;

  /**
   * @param {Session} session
   * @param {() => Record<string, string>} cursor where to go on, as the query of the next connection
   * @param {(message: Message) => void} onMessage
   * @param {(state: FeedState) => void} onState
   */
  constructor(session, cursor, onMessage, onState) {
    this.session = session;
    this.cursor = cursor;
    this.onMessage = onMessage;
    this.onState = onState;
    setInterval(() => this.#checkPulse(), 2000);
    addEventListener("online", () => this.state.name === "reconnecting" && this.connect());
  }

  /** Connect now, as a person asked: whatever was planned, and as if nothing had failed before. */
  connect() {
    this.#failures = 0;
    this.#open();
  }

  async #open() {
    this.#drop();
    const attempt = this.#attempt;
    this.#enter({ then: "connecting", reason: this.state.name === "reconnecting" ? this.state.reason : "" });
    let url;
    try {
      url = await this.session.socketUrl(this.cursor());
    } catch (error) {
      const expired = error instanceof Refused && error.status === 401;
      if (attempt === this.#attempt) this.#lose(expired ? REFUSALS.expired : REFUSALS.unreachable);
      return;
    }
    if (attempt !== this.#attempt) return; // given up, or begun anew, while we asked
    const socket = (this.#socket = new WebSocket(url));
    let opened = false;
    socket.onopen = () => {
      opened = true;
      this.heardAt = performance.now();
    };
    socket.onmessage = (event) => this.#hear(event.data);
    socket.onclose = (event) => this.#closed(attempt, opened, event.code);
  }

  /**
   * Stay away, until `connect` is called again.
   *
   * @param {string} reason
   */
  disconnect(reason) {
    this.#drop();
    this.#enter({ then: "signed-out", reason });
  }

  /** @param {unknown} text */
  #hear(text) {
    this.heardAt = performance.now();
    /** @type {Message} */
    let message;
    try {
      message = JSON.parse(String(text));
    } catch {
      return;
    }
    if (message.type === "status" && this.state.name !== "live") {
      this.#liveSince = this.heardAt;
      this.#enter({ then: "live", reason: "" });
    }
    if (message.type === "token_expiring") this.#renewSoon(this.#attempt);
    this.onMessage(message);
  }

  /**
   * Let the connection stand on a newer token. A failure may pass while the old one lasts, and this is said only once, so
   * it is tried until the daemon refuses the old one or closes the connection, whose code says what then.
   *
   * @param {number} attempt
   */
  async #renewSoon(attempt) {
    let waitSeconds = RENEW_SECONDS;
    for (let failures = 1; ; failures++) {
      await new Promise((wake) => setTimeout(wake, waitSeconds * 1000));
      if (attempt !== this.#attempt) return;
      try {
        const token = await this.session.refresh();
        if (attempt === this.#attempt) this.#socket?.send(JSON.stringify({ type: "auth", data: { token } }));
        return;
      } catch (error) {
        if (error instanceof Refused && error.status === 401) return;
        waitSeconds = delaySeconds(failures, Math.random());
      }
    }
  }

  /**
   * @param {number} attempt
   * @param {boolean} opened
   * @param {number} code
   */
  async #closed(attempt, opened, code) {
    const meaning = opened ? (CLOSE_CODES[code] ?? LOST) : REFUSALS[await this.session.standing()];
    if (attempt === this.#attempt) this.#lose(meaning);
  }

  /** @param {CloseMeaning} meaning */
  #lose(meaning) {
    // A connection that broke at once does not prove that the daemon is well again.
    const settled =
      this.state.name === "live" && performance.now() - this.#liveSince > SETTLED_SECONDS * 1000;
    this.#drop();
    if (meaning.then === "reconnecting") {
      this.#failures = settled ? 0 : this.#failures + 1;
      const wait = 1000 * Math.max(meaning.waitSeconds ?? 0, delaySeconds(this.#failures, Math.random()));
      this.#retry = setTimeout(() => this.#open(), wait);
      this.#enter(meaning, performance.now() + wait);
    } else {
      this.#failures = 0;
      this.#enter(meaning);
    }
  }

  /** Forget the socket; what it may still say is not heard. */
  #drop() {
    this.#attempt += 1;
    clearTimeout(this.#retry);
    const socket = this.#socket;
    this.#socket = null;
    this.#pingedAt = 0;
    if (!socket) return;
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.close();
  }

  /** Whether messages come, and an answer where this page had to ask. */
  get live() {
    const missed = this.#pingedAt > this.heardAt && performance.now() - this.#pingedAt > LATE_SECONDS * 1000;
    return this.state.name === "live" && !missed;
  }

  /** A dead link sends no close: after a silence ask, and when no word comes back, give up. */
  #checkPulse() {
    const now = performance.now();
    if (this.#socket?.readyState !== WebSocket.OPEN) return;
    if (this.#pingedAt > this.heardAt) {
      if (now - this.#pingedAt > PONG_SECONDS * 1000)
        this.#lose({ ...LOST, reason: "The daemon fell silent." });
    } else if (now - this.heardAt > QUIET_SECONDS * 1000) {
      this.#pingedAt = now;
      this.#socket.send('{"type":"ping"}');
    }
  }

  /**
   * @param {CloseMeaning} meaning
   * @param {number} retryAt
   */
  #enter({ then, reason }, retryAt = 0) {
    this.state = { name: then, reason, retryAt };
    this.onState(this.state);
  }
}
