#!/usr/bin/env bash
# Everything with curl alone: submit, wait, stream, cancel; upload, search, ask with citations.
#
#     make up                                # in another terminal
#     bash examples/curl_only.sh
#
# ENGINEHOUSE_URL says where, ENGINEHOUSE_API_KEY has the key if one is wanted.
set -euo pipefail

url=${ENGINEHOUSE_URL:-http://127.0.0.1:5000}
house() { curl --silent --show-error --fail-with-body --max-time 120 ${ENGINEHOUSE_API_KEY:+-H "Authorization: Bearer $ENGINEHOUSE_API_KEY"} "$@"; }
# The first value of a field; with jq it would be: jq -r ".$1"
field() { grep -o "\"$1\": *\"[^\"]*\"" | head -n 1 | cut -d '"' -f 4; }
json='Content-Type: application/json'

echo "== Submit, and look again later"
# The same key sent again makes no second job, however often the line breaks.
job=$(house "$url/generate" -H "$json" -H "Idempotency-Key: example-$$" -d '{"prompt": "Once upon a time", "max_tokens": 16}' | field id)
again=$(house "$url/generate" -H "$json" -H "Idempotency-Key: example-$$" -d '{"prompt": "Once upon a time", "max_tokens": 16}' | field id)
[ "$job" = "$again" ]
house "$url/jobs/$job?wait=60" | field status

echo "== Wait for the answer in the same call"
house "$url/generate" -H "$json" -H 'Prefer: wait=60' \
  -d '{"messages": [{"role": "user", "content": "What is the capital of France?"}], "max_tokens": 32}' | field text

echo "== Watch the answer being written; after=N goes on behind event N"
job=$(house "$url/generate" -H "$json" -d '{"prompt": "Tell me about ducks", "max_tokens": 16}' | field id)
house --no-buffer "$url/jobs/$job/events?after=0" | grep '^event:' | sort | uniq -c

echo "== Put a document in, and find something in it"
here=$(cd "$(dirname "$0")" && pwd)
reading=$(house "$url/collections/example/documents" -F "file=@$here/documents/rules-of-the-house.md" | field id)
house "$url/jobs/$reading?wait=60" | field status
house "$url/collections/example/search" -H "$json" -H 'Prefer: wait=60' -d '{"query": "How long is a lease?", "top_k": 1}' | field text

echo "== Ask, with citations"
house "$url/generate" -H "$json" -H 'Prefer: wait=60' \
  -d '{"messages": [{"role": "user", "content": "How long is a lease?"}], "collection": "example", "max_tokens": 32}' | field quote

echo "== Stop a job"
job=$(house "$url/generate" -H "$json" -d '{"prompt": "A very long story", "priority": "batch", "max_tokens": 64}' | field id)
# 409 when it has ended already.
house -X POST "$url/jobs/$job/cancel" | field status || true
