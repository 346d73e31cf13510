#!/usr/bin/env bash
# An example that contradicts its message is refused in one version of the format and passes in the next.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

npm install --silent --no-audit --no-fund --prefix "$folder" @asyncapi/parser@3.6.6 >"$folder/npm" 2>&1

cat >"$folder/show.mjs" <<'SCRIPT'
import { Parser } from '@asyncapi/parser';

const payload = { type: 'object', required: ['term'], properties: { term: { type: 'integer' } } };
const message = { payload, examples: [{ payload: { term: 'seven' } }] };
const info = { title: 'cluster', version: '1' };
const documents = [
    { asyncapi: '2.6.0', info, channels: { events: { subscribe: { message } } } },
    {
        asyncapi: '3.0.0', info,
        channels: { events: { address: 'events', messages: { elected: message } } },
        operations: { hear: { action: 'receive', channel: { $ref: '#/channels/events' } } },
    },
];
const seen = [];
for (const document of documents) {
    const { diagnostics } = await new Parser().parse(JSON.stringify(document));
    const about = diagnostics.filter((each) => each.path.includes('examples')).map((each) => each.code);
    seen.push(`${document.asyncapi}: ${about.join(' ') || 'nothing'}`);
}
console.log(seen.join('; '));
SCRIPT
output=$(cd "$folder" && timeout 60 node show.mjs)

echo "version: @asyncapi/parser $(node -p "require('$folder/node_modules/@asyncapi/parser/package.json').version"), Node $(node --version)"
echo "behaviour: both versions of the specification say that the payload of an example must validate against the message's; the parser reports one that does not in a document of 2.6.0, and says nothing of it in one of 3.0.0"
printf 'output: %s\n' "$output"

if ! [[ $output == "2.6.0: asyncapi2-message-examples; 3.0.0: nothing" ]]; then
    echo "changed: this is no longer so" >&2
    exit 1
fi
