// Follows the cluster and misses no event: over restarts of the daemon, of the network and of itself. Node 22 and
// later need nothing else; Node 20 needs `npm install` (ws).
//
//   HELIOSD_URL=http://127.0.0.1:8080 HELIOSD_USER=admin HELIOSD_PASSWORD=… node resume.mjs
//
// With HELIOSD_CURSOR=FILE the next run goes on where this one stopped. docs/protocol.md is what this program goes by,
// but for the history, which it reads beside the open connection; the page has a simpler way.

import { existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

const WebSocket = globalThis.WebSocket ?? (await import('ws')).WebSocket;
const { HELIOSD_URL = 'http://127.0.0.1:8080', HELIOSD_USER, HELIOSD_PASSWORD, HELIOSD_CURSOR } = process.env;
const PING_MS = 20_000; // no answer until the next one: the connection is dead
const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 30_000;
const STEADY_MS = 10_000;
const NEVER_AGAIN = new Set([1002, 1003, 1007, 1009, 4403]);
const PAUSE_MS = { 4000: 5_000, 4429: 10_000 };

const base = HELIOSD_URL.replace(/\/$/, '');
let token = null;
let cursor = HELIOSD_CURSOR && existsSync(HELIOSD_CURSOR) ? JSON.parse(readFileSync(HELIOSD_CURSOR)) : null;

// Why there is no connection, and how long to wait at least. `final`: trying again is of no use.
class Ended extends Error {
  constructor(message, { wait = 0, final = false } = {}) {
    super(message);
    Object.assign(this, { wait, final });
  }
}

async function ask(method, path, body) {
  const answer = await fetch(base + path, {
    method,
    headers: token ? { Authorization: `Bearer ${token}` } : {},
    body: body && JSON.stringify(body),
    signal: AbortSignal.timeout(10_000),
  });
  const content = await answer.json();
  if (answer.status === 429 || answer.status >= 500) {
    const wait = 1000 * Number(answer.headers.get('Retry-After') ?? 0);
    throw new Ended(`${method} ${path}: ${answer.status} ${content.error}`, { wait });
  }
  return { status: answer.status, content };
}

async function logIn() {
  token = null;
  const { status, content } = await ask('POST', '/api/auth/login', {
    username: HELIOSD_USER,
    password: HELIOSD_PASSWORD,
  });
  if (status !== 200) throw new Ended(`login refused: ${content.error}`, { final: true });
  token = content.token;
}

async function renew(socket) {
  const { status, content } = await ask('POST', '/api/auth/refresh');
  if (status === 200) token = content.token;
  else await logIn();
  socket.send(JSON.stringify({ type: 'auth', data: { token } }));
}

function save() {
  if (!HELIOSD_CURSOR) return;
  writeFileSync(`${HELIOSD_CURSOR}.new`, JSON.stringify(cursor));
  renameSync(`${HELIOSD_CURSOR}.new`, HELIOSD_CURSOR);
}

function moveTo(seq) {
  if (cursor === null || !(seq > cursor.seq)) return;
  cursor.seq = seq;
  save();
}

// One line for each message. A client must ignore the types and keys that it does not know.
function show({ type, timestamp, seq, data, provisional }) {
  const print = (text) => console.log(timestamp, seq ?? '-', text, provisional ? '(provisional)' : '');
  switch (type) {
    case 'status':
      return print(`${data.node_id} is ${data.state} in term ${data.term}, ${data.leader || 'nobody'} leads`);
    case 'state_change':
      return print(`${data.old_state} -> ${data.new_state} in term ${data.term}, ${data.leader || 'nobody'} leads`);
    case 'peer_change':
      return print(`peer ${data.peer_id} ${data.event_type}`);
    case 'custom_metrics':
      return Object.entries(data).forEach(([name, metric]) => print(`${name} = ${metric?.value ?? 'deleted'}`));
    case 'snapshot':
      return print(`snapshot ${data.snapshot_id} ${data.type}`);
    case 'gap':
      return print(`${data.dropped} events will not come: ${data.from_seq} to ${data.to_seq}, ${data.reason}`);
    case 'error':
      return print(`error: ${data.error}`);
    default:
      return undefined;
  }
}

// The events up to `until` from the history; false if they are not all to be had.
async function page(until) {
  for (;;) {
    const query = new URLSearchParams({ epoch: cursor.epoch, after: cursor.seq, limit: 1000 });
    const { status, content } = await ask('GET', `/api/cluster/history?${query}`);
    if (status === 401) {
      token = null;
      throw new Ended('the token is not valid any more');
    }
    if (status !== 200) return false; // 403: no right to read; 410: not kept any more
    for (const message of content.events) {
      if (message.seq > until) return true;
      show(message);
      moveTo(message.seq);
    }
    // Behind an address of several daemons another one may have answered, which has not come as far.
    if (!content.more && content.seq < until) throw new Ended('the history is that of a daemon that is behind');
    if (!content.more) return true;
  }
}

async function take(message, connection) {
  const { type, data, seq, timestamp } = message;
  show(message);
  if (type === 'welcome') {
    const resumed = connection.resumed;
    connection.resumed = true;
    if (resumed && data.recovered) return; // the replay moves the cursor
    if (resumed && !(data.reason === 'too_many' && (await page(data.seq)))) {
      console.log(timestamp, '-', `LOST: events after ${cursor.seq} of ${cursor.epoch}, ${data.reason}`);
    }
    cursor = { epoch: data.epoch, seq: data.seq };
    save();
  } else if (type === 'status') {
    moveTo(data.as_of_seq);
  } else if (type === 'token_expiring') {
    await renew(connection.socket).catch((error) => console.error('the token was not renewed:', error.message));
  } else {
    moveTo(seq);
  }
}

// One connection, from the login to its end, which always throws.
async function connection() {
  if (token === null) await logIn();
  const query = new URLSearchParams(cursor ? { epoch: cursor.epoch, after: cursor.seq } : { after: 'now' });
  const url = `${base.replace(/^http/, 'ws')}/ws/cluster?${query}`;
  const socket = new WebSocket(url, ['heliosd.v1', `bearer.${token}`]);
  const state = { socket, resumed: cursor !== null };
  let opened = false;
  let heard = false;
  let queue = Promise.resolve(); // messages are taken in their order, also while one waits for the history
  const ended = await new Promise((resolve) => {
    const pings = setInterval(() => {
      if (!heard) resolve(new Ended('nothing heard'));
      else if (opened) socket.send('{"type":"ping"}');
      heard = false;
    }, PING_MS);
    heard = true;
    socket.addEventListener('open', () => (opened = true));
    socket.addEventListener('message', (event) => {
      heard = true;
      queue = queue
        .then(() => state.failed || take(JSON.parse(event.data), state)) // after a failure nothing moves the cursor
        .catch((error) => {
          state.failed = true;
          resolve(error);
        });
    });
    socket.addEventListener('error', () => {}); // `close` follows
    socket.addEventListener('close', ({ code, reason }) => {
      clearInterval(pings);
      resolve(new Ended(`closed with ${code} ${reason}`, { wait: PAUSE_MS[code], final: NEVER_AGAIN.has(code) }));
      if (code === 4401) token = null;
    });
  });
  socket.close();
  await queue;
  // Node's own WebSocket does not show why an upgrade was refused.
  if (!opened && token !== null && (await ask('GET', '/api/auth/me')).status === 401) token = null;
  throw ended;
}

for (let ceiling = FIRST_WAIT_MS; ; ceiling = Math.min(2 * ceiling, LONGEST_WAIT_MS)) {
  const started = performance.now();
  const error = await connection().catch((thrown) => thrown);
  if (error.final) {
    console.error(error.message);
    process.exit(1);
  }
  if (performance.now() - started > STEADY_MS) ceiling = FIRST_WAIT_MS;
  // The upper three quarters, by chance: many clients lose a daemon at one moment.
  const wait = Math.max(error.wait ?? 0, ceiling * (0.25 + 0.75 * Math.random()));
  console.error(`${error.cause?.message ?? error.message}; again in ${(wait / 1000).toFixed(1)} s`);
  await sleep(wait);
}
