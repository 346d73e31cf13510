import { useCallback, useState } from 'react';
import { createRoot } from 'react-dom/client';
import { useCluster } from './useCluster.js';

async function logIn(url, username, password) {
  const answer = await fetch(`${url}/api/auth/login`, { method: 'POST', body: JSON.stringify({ username, password }) });
  const { token, error } = await answer.json();
  if (!answer.ok) throw new Error(error);
  return token;
}

function Cluster({ url, username, password }) {
  const getToken = useCallback(() => logIn(url, username, password), [url, username, password]);
  const { connected, status, events, lost } = useCluster(url, getToken);
  return (
    <main>
      <p id="connection">{connected ? 'connected' : 'not connected'}</p>
      {status && (
        <p id="status">
          {status.leader || 'nobody'} leads in term {status.term}, {status.cluster_health.healthy_peers} of{' '}
          {status.cluster_health.total_peers} peers healthy
        </p>
      )}
      {lost && <p>events are missing: {lost}</p>}
      <ol id="events">
        {events.map(({ seq, type, timestamp, data }) => (
          <li key={seq}>
            {timestamp} {seq} {type} {JSON.stringify(data)}
          </li>
        ))}
      </ol>
    </main>
  );
}

function App() {
  const [daemon, setDaemon] = useState(null);
  const submit = (event) => {
    event.preventDefault();
    setDaemon(Object.fromEntries(new FormData(event.target)));
  };
  if (daemon) return <Cluster {...daemon} />;
  return (
    <form onSubmit={submit}>
      <input name="url" defaultValue="http://127.0.0.1:8080" aria-label="Daemon" />
      <input name="username" autoComplete="username" aria-label="User" />
      <input name="password" type="password" autoComplete="current-password" aria-label="Password" />
      <button>Connect</button>
    </form>
  );
}

createRoot(document.getElementById('root')).render(<App />);
