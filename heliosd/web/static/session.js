/**
 * Who is signed in. Scripts have the token in this object alone: never in storage or a URL. A cookie that they cannot
 * read has it, too, so that the page is still signed in after a reload. Where only a URL can say who asks, a ticket
 * does, which works once.
 */

const ANSWER_SECONDS = 10;

/** The daemon answered with a refusal; `message` is fit to be shown. */
export class Refused extends Error {
  /**
   * @param {number} status the HTTP status
   * @param {string} message
   */
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** No answer came: the daemon is down, out of reach, or too slow. */
export class Unreachable extends Error {}

/** An answer that nobody waits for any more. */
const overtaken = () => new Refused(401, "That session has ended.");

/**
 * @param {string} path
 * @param {RequestInit} options
 * @param {AbortSignal} [ended] once it is aborted no answer is wanted
 * @returns {Promise<Response>}
 */
async function ask(path, options, ended) {
  try {
    const late = AbortSignal.timeout(ANSWER_SECONDS * 1000);
    const signal = ended ? AbortSignal.any([late, ended]) : late;
    return await fetch(path, { credentials: "omit", cache: "no-store", signal, ...options });
  } catch {
    throw ended?.aborted ? overtaken() : new Unreachable("The daemon does not answer.");
  }
}

/**
 * What a failed login means for the person who tried.
 *
 * @param {Response} answer
 * @returns {string}
 */
function explain(answer) {
  const wait = Number(answer.headers.get("Retry-After"));
  const when = wait > 0 ? ` Try again in ${wait} s.` : " Try again in a moment.";
  switch (answer.status) {
    case 400:
      return "The daemon does not take this name or password.";
    case 401:
      return "Wrong name or password.";
    case 429:
      return `Too many attempts.${when}`;
    case 503:
      return `The daemon is busy.${when}`;
    default:
      return `The daemon answered with status ${answer.status}.`;
  }
}

/**
 * Note in the tab's history entry, which survives a reload, whether this page may have a session: without one it does
 * not ask for it.
 *
 * @param {boolean} on
 */
function mark(on) {
  history.replaceState(on ? { session: true } : null, "");
}

export class Session {
  #token = "";
  /** Counts the sessions that began or ended here: what was asked for in an earlier one is not taken. */
  #count = 0;
  /** Aborted when this session ends: what it is still asking for would be refused, which browsers report as a fault. */
  #ended = new AbortController();
  /** The signed-in user's name, "" for nobody. */
  user = "";
  /** What the session may do; see `learnPermissions`. @type {string[]} */
  permissions = [];
  /** When the token ends (RFC 3339), "" for nobody. */
  expiresAt = "";

  /** @param {string} permission */
  may(permission) {
    return this.permissions.includes(permission) || this.permissions.includes("admin:*");
  }

  get signedIn() {
    return this.#token !== "";
  }

  /**
   * @param {string} username
   * @param {string} password
   * @throws {Refused | Unreachable} and then nothing about the session has changed
   */
  async login(username, password) {
    const answer = await ask("api/auth/login", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ username, password }),
    });
    if (answer.ok) this.#count += 1;
    await this.#take(answer, this.#count);
    await this.#keepForReload();
    mark(true);
  }

  /** Put the token into the cookie. Without it only a reload signs out. */
  async #keepForReload() {
    await ask("api/auth/session", { method: "POST", headers: this.#headers(), credentials: "same-origin" }).catch(() => {});
  }

  /**
   * Go on with the session that this page had before a reload, if any.
   *
   * @returns {Promise<boolean>} whether somebody is signed in now
   */
  async restore() {
    if (!history.state?.session) return false;
    const count = this.#count;
    try {
      const answer = await ask("api/auth/refresh", { method: "POST", credentials: "same-origin" });
      await this.#take(answer, count);
    } catch (error) {
      if (error instanceof Refused && error.status === 401 && count === this.#count) mark(false);
    }
    return this.signedIn;
  }

  /**
   * Have the token replaced by a newer one.
   *
   * @returns {Promise<string>} the new token, for the connection that stands on the old one
   * @throws {Refused | Unreachable} and then the old one stays
   */
  async refresh() {
    const [count, headers] = [this.#count, this.#headers()];
    const answer = await ask("api/auth/refresh", { method: "POST", headers, credentials: "same-origin" });
    await this.#take(answer, count);
    return this.#token;
  }

  /** @param {Response} answer to a login or a refresh @param {number} count of sessions when it was asked for */
  async #take(answer, count) {
    if (!answer.ok) throw new Refused(answer.status, explain(answer));
    const { token, user_id, expires_at } = await answer.json().catch(() => ({}));
    if (typeof token !== "string" || !token)
      throw new Refused(answer.status, "The daemon's answer makes no sense.");
    if (count !== this.#count) {
      await this.#revokeLate(token);
      throw overtaken();
    }
    this.#token = token;
    this.user = String(user_id);
    this.expiresAt = String(expires_at);
  }

  /** A token came after its session had ended, perhaps with a cookie: nobody else would revoke it. @param {string} token */
  async #revokeLate(token) {
    const credentials = this.signedIn ? "omit" : "same-origin";
    const headers = { Authorization: `Bearer ${token}` };
    await ask("api/auth/logout", { method: "POST", headers, credentials }).catch(() => {});
    if (this.signedIn) await this.#keepForReload(); // the late cookie has taken the place of this session's
  }

  /**
   * Revoke the token and forget it. It is forgotten whatever happens.
   *
   * @returns {Promise<boolean>} false when the daemon could not be reached, so that the token lives until it ends
   */
  async logout() {
    const headers = this.#headers();
    this.forget();
    try {
      const answer = await ask("api/auth/logout", { method: "POST", headers, credentials: "same-origin" });
      return answer.ok || answer.status === 401;
    } catch {
      return false;
    }
  }

  /** Note the session in a history entry that the browser made anew, as for another `#` in the address. */
  keep() {
    if (this.signedIn) mark(true);
  }

  /** Forget the session here, without a request. */
  forget() {
    mark(false);
    this.#ended.abort();
    this.#ended = new AbortController();
    this.#count += 1;
    this.#token = "";
    this.user = "";
    this.permissions = [];
    this.expiresAt = "";
  }

  /**
   * Why a WebSocket did not open: a browser does not show a page what the daemon answered to the upgrade, so ask by HTTP.
   *
   * @returns {Promise<"expired" | "forbidden" | "allowed" | "unreachable">}
   */
  async standing() {
    try {
      const answer = await ask("api/auth/me", { headers: this.#headers() }, this.#ended.signal);
      if (answer.status === 401) return "expired";
      if (answer.status === 403) return "forbidden";
      if (!answer.ok) return "unreachable";
      /** @type {{permissions?: string[]}} */
      const { permissions = [] } = await answer.json();
      return permissions.some((name) => name === "cluster:watch" || name === "admin:*")
        ? "allowed"
        : "forbidden";
    } catch {
      return "unreachable";
    }
  }

  /**
   * The address of the cluster's WebSocket, good for one connection within 30 s.
   *
   * @param {Record<string, string>} cursor where to go on
   * @returns {Promise<URL>}
   * @throws {Refused | Unreachable}
   */
  async socketUrl(cursor) {
    const answer = await ask("api/auth/ticket", { method: "POST", headers: this.#headers() }, this.#ended.signal);
    if (!answer.ok) throw new Refused(answer.status, explain(answer));
    const { ticket } = await answer.json().catch(() => ({}));
    const url = new URL("ws/cluster", location.href);
    url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
    url.search = String(new URLSearchParams({ ticket: String(ticket), ...cursor }));
    return url;
  }

  /**
   * Ask the daemon what this session may do.
   *
   * @returns {Promise<boolean>} false when it did not say: then what is known stays
   */
  async learnPermissions() {
    const count = this.#count;
    const me = await this.request("GET", "api/auth/me").catch(() => null);
    if (!me || count !== this.#count) return false;
    this.permissions = me.permissions ?? [];
    return true;
  }

  /**
   * @param {string} method
   * @param {string} path
   * @param {any} [body]
   * @returns {Promise<any>} the answer's body
   * @throws {Refused | Unreachable} with the daemon's own words where it gives some
   */
  async request(method, path, body) {
    const json = body === undefined ? {} : { "Content-Type": "application/json" };
    const options = { method, headers: { ...this.#headers(), ...json }, body: JSON.stringify(body) };
    // What changes something goes on: nobody could say whether it was done.
    const ended = method === "GET" ? this.#ended.signal : undefined;
    const answer = await ask(path, options, ended);
    const said = await answer.json().catch(() => ({}));
    if (ended?.aborted) throw overtaken();
    if (answer.ok) return said;
    const field = said.field ? ` (${said.field})` : "";
    throw new Refused(answer.status, said.error ? `${said.error}${field}` : `The daemon answered with status ${answer.status}.`);
  }

  #headers() {
    return { Authorization: `Bearer ${this.#token}` };
  }
}
