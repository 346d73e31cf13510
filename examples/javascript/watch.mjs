// Prints what happens in the cluster. Node 22 and later need nothing else; Node 20 needs `npm install` (ws).
//
//   HELIOSD_URL=http://127.0.0.1:8080 HELIOSD_USER=admin HELIOSD_PASSWORD=… node watch.mjs
//
// Logs in, subscribes, pings, and when the connection ends logs in and connects again, each time after a longer wait.

import { setTimeout as sleep } from 'node:timers/promises';

const WebSocket = globalThis.WebSocket ?? (await import('ws')).WebSocket;
const PING_MS = 20_000;
const SILENCE_MS = 60_000; // the pongs alone come more often
const LONGEST_WAIT_MS = 30_000;
const WANTED = ['status', 'latency', 'uptime', 'snapshot', 'custom_metrics', 'state_changes', 'peer_changes'];

const { HELIOSD_URL = 'http://127.0.0.1:8080', HELIOSD_USER, HELIOSD_PASSWORD } = process.env;
if (!HELIOSD_USER || !HELIOSD_PASSWORD) {
  console.error('set HELIOSD_USER and HELIOSD_PASSWORD');
  process.exit(2);
}

async function logIn() {
  const answer = await fetch(new URL('/api/auth/login', HELIOSD_URL), {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify({ username: HELIOSD_USER, password: HELIOSD_PASSWORD }),
    signal: AbortSignal.timeout(10_000),
  });
  if ([400, 401, 403].includes(answer.status)) {
    console.error('login refused:', await answer.text());
    process.exit(1);
  }
  if (!answer.ok) throw new Error(`login: ${answer.status} ${await answer.text()}`);
  return (await answer.json()).token;
}

// One line for each message. A client must ignore the types and keys it does not know.
function show({ type, timestamp, data }) {
  const print = (text) => console.log(timestamp, text);
  switch (type) {
    case 'status':
    case 'status_update':
      return print(`${data.node_id} is ${data.state} in term ${data.term}, ${data.leader || 'nobody'} leads`);
    case 'state_change':
      return print(`${data.old_state} -> ${data.new_state} in term ${data.term}`);
    case 'peer_change':
      return print(`peer ${data.peer_id} ${data.event_type}`);
    case 'custom_metrics':
      return Object.entries(data).forEach(([name, metric]) => print(`${name} = ${metric?.value ?? 'deleted'}`));
    case 'error':
      return print(`error: ${data.error}`);
    default:
      return print(type);
  }
}

// Resolves with the reason when the connection has ended.
function watch(token) {
  const target = new URL('/ws/cluster', HELIOSD_URL.replace(/^http/, 'ws'));
  target.searchParams.set('token', token); // the browsers' WebSocket, and so this one, cannot send a header
  return new Promise((resolve) => {
    const socket = new WebSocket(target);
    const send = (message) => socket.send(JSON.stringify(message));
    let pings, silence;
    const end = (reason) => {
      clearInterval(pings);
      clearTimeout(silence);
      resolve(reason);
      socket.close();
    };
    const heard = () => {
      clearTimeout(silence);
      silence = setTimeout(end, SILENCE_MS, 'nothing heard');
    };
    heard();
    socket.addEventListener('open', () => {
      send({ type: 'subscribe', data: Object.fromEntries(WANTED.map((name) => [name, true])) });
      pings = setInterval(send, PING_MS, { type: 'ping' });
    });
    socket.addEventListener('message', (event) => {
      heard();
      show(JSON.parse(event.data));
    });
    socket.addEventListener('error', (event) => end(event.message || 'connection failed'));
    socket.addEventListener('close', (event) => end(`closed with ${event.code} ${event.reason}`));
  });
}

for (let wait = 1000; ; wait = Math.min(2 * wait, LONGEST_WAIT_MS)) {
  const started = performance.now();
  const reason = await logIn().then(watch).catch((error) => error.cause?.message || error.message);
  if (performance.now() - started > 60_000) wait = 1000;
  console.error(`${reason}, connecting again`);
  await sleep(wait * (0.5 + Math.random() / 2)); // spread: many clients lose a daemon at one moment
}
