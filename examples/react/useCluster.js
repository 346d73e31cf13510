// A React hook that follows the cluster: `useCluster(url, getToken)` → { connected, status, events, lost }.
//
// `getToken` returns (a promise of) a token; it is asked again when the one before has ended. `status` is the newest one,
// `events` are the newest 100, first the newest, and `lost` says why events are missing, if some are. It reconnects, and
// resumes where it was.

import { useEffect, useReducer } from 'react';

const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 30_000;
const PING_MS = 20_000;
const KEPT_EVENTS = 100;
const NEVER_AGAIN = [1002, 1003, 1007, 1009, 4403];
const PAUSE_MS = { 4000: 5_000, 4429: 10_000 };
const EMPTY = { connected: false, status: null, events: [], lost: null };

function reduce(state, message) {
  switch (message.type) {
    case 'restart':
      return EMPTY;
    case 'connected':
    case 'disconnected':
      return { ...state, connected: message.type === 'connected' };
    case 'status': // replaces all that was known
      return { ...state, status: message.data };
    case 'status_update': // the same without the custom metrics
      return { ...state, status: { ...state.status, ...message.data } };
    case 'gap':
      return { ...state, lost: message.data.reason };
    case 'welcome':
      return message.data.recovered ? state : { ...state, lost: message.data.reason };
    default:
      return message.seq === undefined ? state : { ...state, events: [message, ...state.events].slice(0, KEPT_EVENTS) };
  }
}

export function useCluster(url, getToken) {
  const [state, dispatch] = useReducer(reduce, EMPTY);
  useEffect(() => {
    dispatch({ type: 'restart' });
    let cursor = null;
    let ceiling = FIRST_WAIT_MS;
    let socket, timer, pings;
    let stopped = false;

    const again = (least = 0) => {
      if (stopped) return;
      const wait = Math.max(least, ceiling * (0.25 + 0.75 * Math.random()));
      ceiling = Math.min(2 * ceiling, LONGEST_WAIT_MS);
      timer = setTimeout(connect, wait);
    };

    async function connect() {
      let token;
      try {
        token = await getToken();
      } catch {
        return again();
      }
      if (stopped) return;
      const query = new URLSearchParams(cursor ? { epoch: cursor.epoch, after: cursor.seq } : { after: 'now' });
      socket = new WebSocket(`${url.replace(/^http/, 'ws')}/ws/cluster?${query}`, ['heliosd.v1', `bearer.${token}`]);
      const started = performance.now();
      let heard = true;
      socket.onopen = () => {
        dispatch({ type: 'connected' });
        pings = setInterval(() => {
          if (!heard) return ended(1006); // dead: do not wait for its answer to a close
          heard = false;
          socket.send('{"type":"ping"}');
        }, PING_MS);
      };
      socket.onmessage = ({ data }) => {
        heard = true;
        const message = JSON.parse(data);
        dispatch(message);
        if (message.type === 'welcome') {
          // A replay that follows moves the cursor by itself.
          if (cursor === null || !message.data.recovered) cursor = { epoch: message.data.epoch, seq: message.data.seq };
        } else if (cursor) {
          cursor.seq = Math.max(cursor.seq, (message.type === 'status' ? message.data.as_of_seq : message.seq) ?? 0);
        }
      };
      const opened = socket;
      const ended = (code) => {
        if (socket !== opened) return;
        socket = undefined;
        opened.onclose = opened.onmessage = null;
        opened.close();
        clearInterval(pings);
        dispatch({ type: 'disconnected' });
        if (performance.now() - started > 10_000) ceiling = FIRST_WAIT_MS;
        if (!NEVER_AGAIN.includes(code)) again(PAUSE_MS[code]);
      };
      socket.onclose = ({ code }) => ended(code);
    }

    connect();
    return () => {
      stopped = true;
      if (socket) socket.onclose = null;
      clearTimeout(timer);
      clearInterval(pings);
      socket?.close();
    };
  }, [url, getToken]);
  return state;
}
