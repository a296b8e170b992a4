#!/bin/sh
# Headrace with the `nats` command line and jq: a knowledge base, a text, an app, a question, its answer.
#   eval "$(headrace env)" && sh examples/publish.sh
set -eu
export NATS_URL="${1:-${NATS_URL:-nats://127.0.0.1:4222}}"

new_id() { cat /proc/sys/kernel/random/uuid 2>/dev/null || uuidgen | tr A-F a-f; }

# Publish a command and print its outcome; its id is the header Headrace-Id, and a created aggregate has the same id.
send() { # NOUN.VERB JSON ID
  nats publish --jetstream --quiet "cmd.default.s_default.$1" "$2" -H "Headrace-Id:$3"
  until outcome=$(nats request --raw "\$JS.API.DIRECT.GET.OUTCOMES.out.default.$3" "" | grep '^{'); do sleep 0.2; done
  echo "$outcome"
  echo "$outcome" | jq -e '.status == "accepted"' >/dev/null
}

# Wait until a document is indexed or has failed, and print its last commit: an array of events.
indexed() { # ID
  until nats request --raw "\$JS.API.DIRECT.GET.EVENTS.evt.default.document.$1" "" |
    grep -E '"document\.(completed|failed)\.v1"'; do sleep 0.2; done
}

dataset=$(new_id) document=$(new_id) app=$(new_id) message=$(new_id)

send dataset.create '{"name": "Notes"}' "$dataset"
send document.upload '{"dataset": "'"$dataset"'", "name": "note.txt",
  "text": "The boat house is locked at nine in the evening. Its key hangs in the gatehouse."}' "$document"
indexed "$document"

send app.create '{"name": "Porter"}' "$app"
send app.configure '{"app": "'"$app"'", "datasets": ["'"$dataset"'"]}' "$(new_id)"

nats subscribe --raw --wait 5s "live.default.$message.$message" & # the tokens, as they come, and the answer
sleep 1
send message.send '{"app": "'"$app"'", "query": "When is the boat house locked?"}' "$message"
wait
