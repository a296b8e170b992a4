#!/bin/sh
# Headrace with the `nats` command line and jq: a knowledge base, a text, an app, a question, its answer.
#   sh examples/publish.sh nats://127.0.0.1:4222
set -eu
export NATS_URL="${1:-${HEADRACE_NATS_URL:-nats://127.0.0.1:4222}}"

new_id() { cat /proc/sys/kernel/random/uuid 2>/dev/null || uuidgen | tr A-F a-f; }

# Publish a command and print its outcome; its id is the header Nats-Msg-Id, and a created aggregate has the same id.
send() { # NOUN.VERB JSON ID
  nats publish --jetstream --quiet "cmd.default.$1" "$2" -H "Nats-Msg-Id:$3"
  until outcome=$(nats request --raw "\$JS.API.DIRECT.GET.OUTCOMES.out.default.$3" "" | grep '^{'); do sleep 0.2; done
  echo "$outcome"
  echo "$outcome" | jq -e '.status == "accepted"' >/dev/null
}

# Wait until an aggregate has succeeded or failed, and print its last commit: an array of events.
await() { # NOUN ID
  until nats stream get EVENTS --last-for "evt.default.$1.$2" --json 2>/dev/null |
    jq -r '.data | @base64d' | grep -E '"[a-z]+\.(completed|answered|failed)\.v1"'; do sleep 0.2; done
}

dataset=$(new_id) document=$(new_id) app=$(new_id) message=$(new_id)

send dataset.create '{"name": "Notes"}' "$dataset"
send document.upload '{"dataset": "'"$dataset"'", "name": "note.txt",
  "text": "The boat house is locked at nine in the evening. Its key hangs in the gatehouse."}' "$document"
await document "$document"

send app.create '{"name": "Porter"}' "$app"
send app.configure '{"app": "'"$app"'", "datasets": ["'"$dataset"'"]}' "$(new_id)"

nats subscribe --raw --wait 5s "live.default.$message.$message" & # the tokens, as they come
sleep 1
send message.send '{"app": "'"$app"'", "query": "When is the boat house locked?"}' "$message"
await conversation "$message"
wait
