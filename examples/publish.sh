#!/bin/sh
# Headrace with the `nats` command line alone: a knowledge base, a text, an app, a question, its answer.
#   sh examples/publish.sh nats://127.0.0.1:4222
set -eu
export NATS_URL="${1:-${HEADRACE_NATS_URL:-nats://127.0.0.1:4222}}"

# Publish a command: its id travels in Nats-Msg-Id, and what it creates has that id.
send() { # NOUN.VERB JSON ID
  nats publish --jetstream --quiet "cmd.default.$1" "$2" -H "Nats-Msg-Id:$3"
  until nats request --raw "\$JS.API.DIRECT.GET.OUTCOMES.out.default.$3" "" | grep .; do sleep 0.2; done
}
new_id() { cat /proc/sys/kernel/random/uuid 2>/dev/null || uuidgen | tr 'A-F' 'a-f'; }
# Wait until an event of this type stands in the log of an aggregate, and print it.
await() { # NOUN ID TYPE
  until nats stream get EVENTS --last-for "evt.default.$1.$2" --json | jq -r '.data | @base64d' | grep "$3"; do sleep 0.2; done
}

dataset=$(new_id) document=$(new_id) app=$(new_id) message=$(new_id)

send dataset.create '{"name": "Notes"}' "$dataset"
send document.upload '{"dataset": "'"$dataset"'", "name": "note.txt",
  "text": "The boat house is locked at nine in the evening. Its key hangs in the gatehouse."}' "$document"
await document "$document" document.completed.v1

send app.create '{"name": "Porter"}' "$app"
send app.configure '{"app": "'"$app"'", "datasets": ["'"$dataset"'"]}' "$(new_id)"

nats subscribe --raw --count 1000 --wait 5s "live.default.$message.$message" & # tokens, as they come
sleep 1
send message.send '{"app": "'"$app"'", "query": "When is the boat house locked?"}' "$message"
await conversation "$message" message.answered.v1
wait
