#!/usr/bin/env bash
# The API with curl alone: submit, wait, stream, cancel; upload, search, ask with citations.
#
#     enginehouse up                         # in another terminal
#     bash examples/curl_only.sh
#
# ENGINEHOUSE_URL is the address of the server, ENGINEHOUSE_API_KEY the API key if the server needs one.
set -euo pipefail

url=${ENGINEHOUSE_URL:-http://127.0.0.1:5000}
request() { curl --silent --show-error --fail-with-body --max-time 120 ${ENGINEHOUSE_API_KEY:+-H "Authorization: Bearer $ENGINEHOUSE_API_KEY"} "$@"; }
# The first value of a field; with jq it would be: jq -r ".$1"
field() { grep -o "\"$1\": *\"[^\"]*\"" | head -n 1 | cut -d '"' -f 4; }
json='Content-Type: application/json'

echo "== Submit, and poll later"
# Sending the same idempotency key again does not create a second job, however often the connection breaks.
job=$(request "$url/generate" -H "$json" -H "Idempotency-Key: example-$$" -d '{"prompt": "Once upon a time", "max_tokens": 16}' | field id)
again=$(request "$url/generate" -H "$json" -H "Idempotency-Key: example-$$" -d '{"prompt": "Once upon a time", "max_tokens": 16}' | field id)
[ "$job" = "$again" ]
request "$url/jobs/$job?wait=60" | field status

echo "== Wait for the answer in the same call"
request "$url/generate" -H "$json" -H 'Prefer: wait=60' \
  -d '{"messages": [{"role": "user", "content": "What is the capital of France?"}], "max_tokens": 32}' | field text

echo "== Stream the answer; after=N continues after event N"
job=$(request "$url/generate" -H "$json" -d '{"prompt": "Tell me about ducks", "max_tokens": 16}' | field id)
request --no-buffer "$url/jobs/$job/events?after=0" | grep '^event:' | sort | uniq -c

echo "== Upload a document and search it"
here=$(cd "$(dirname "$0")" && pwd)
reading=$(request "$url/collections/example/documents" -F "file=@$here/documents/employee-handbook.md" | field id)
request "$url/jobs/$reading?wait=60" | field status
request "$url/collections/example/search" -H "$json" -H 'Prefer: wait=60' -d '{"query": "How many days of paid vacation are there?", "top_k": 1}' | field text

echo "== Ask, with citations"
request "$url/generate" -H "$json" -H 'Prefer: wait=60' \
  -d '{"messages": [{"role": "user", "content": "How many days of paid vacation are there?"}], "collection": "example", "max_tokens": 32}' | field quote

echo "== Cancel a job"
job=$(request "$url/generate" -H "$json" -d '{"prompt": "A very long story", "priority": "batch", "max_tokens": 64}' | field id)
# The response is 409 if the job has already ended.
request -X POST "$url/jobs/$job/cancel" | field status || true
