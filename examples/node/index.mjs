// Headrace from Node.js: commands out, outcomes, events and live tokens in. See README.md in this folder.
import { randomBytes } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { isDeepStrictEqual, parseArgs } from "node:util";
import { jetstream } from "@nats-io/jetstream";
import { connect, headers } from "@nats-io/transport-node";

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: { json: { type: "boolean" }, tenant: { type: "string", default: "default" } },
});
const { tenant } = options;
const url = new URL(positionals[0] ?? process.env.NATS_URL ?? "nats://127.0.0.1:4222");
// A login of the bus is tenant-<tenant>.<name>, or tenant-<tenant>, and sends as the actor s_<name>, or s_<tenant>.
const login = decodeURIComponent(url.username).match(/^tenant-([^.]+)(?:\.(.+))?$/);
const actor = login ? `s_${login[2] ?? login[1]}` : "anon";
const PATIENCE = 120; // seconds without an event before giving up

const TEXT = `Rules of the reading room at Millbrook Weir

The reading room is open on Tuesdays and Fridays from two o'clock to six.
A map may be borrowed from the reading room for nine days, and renewed once.
Logbooks older than 1950 do not leave the room; the warden makes copies for 15 cents a page.`;
const QUESTION = "For how many days may a map be borrowed?";

let nc, js;

/** One line a step: JSON for programs, a sentence for people. */
const show = (step, fields, sentence) => console.log(options.json ? JSON.stringify({ step, ...fields }) : sentence);

/** A UUIDv7: 48 bits of Unix milliseconds, then version, variant and 74 random bits. */
function uuid7() {
  const bytes = randomBytes(16);
  bytes.writeUIntBE(Date.now(), 0, 6);
  bytes[6] = (bytes[6] & 0x0f) | 0x70;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  return bytes.toString("hex").replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}

/** The last message of a stream's subject, or null while there is none. */
async function kept(stream, subject) {
  const reply = await nc.request(`$JS.API.DIRECT.GET.${stream}.${subject}`);
  if (reply.headers?.code === 404) return null;
  if (reply.headers?.code) throw new Error(`${subject}: ${reply.headers.description}`);
  return reply.json();
}

/** Publish a command and wait for its outcome. What it creates has its id; the same id again changes nothing. */
async function send(name, fields, id = uuid7()) {
  const subject = `out.${tenant}.${id}`;
  let listener;
  const heard = new Promise((resolve) => {
    listener = nc.subscribe(subject, { callback: (_, message) => resolve(message.json()) });
  });
  try {
    await nc.flush(); // make sure that the server has the subscription before the command
    const head = headers();
    head.set("Headrace-Id", id);
    await js.publish(`cmd.${tenant}.${actor}.${name}`, JSON.stringify(fields), { headers: head });
    let outcome = null;
    for (let second = 0; !outcome && second < PATIENCE; second++) {
      outcome = await Promise.race([heard, sleep(1000, null, { ref: false })]) ?? await kept("OUTCOMES", subject);
    }
    if (!outcome) throw new Error(`${name} ${id} had no outcome in ${PATIENCE} s: does a worker run?`);
    return outcome;
  } finally {
    listener.unsubscribe();
  }
}

/** Send a command that has to be accepted, and show its outcome. */
async function accepted(name, fields, id) {
  const outcome = await send(name, fields, id);
  const { status, sequence, ids, code, field, message } = outcome;
  const reason = field ? `${field}: ${message}` : message;
  if (status !== "accepted") throw new Error(`${name} was ${status}: ${code}: ${reason}`);
  show("outcome", { outcome }, `${name}: ${status}, EVENTS ${sequence}, ${JSON.stringify(ids)}`);
  return outcome;
}

/** The events of a document's newest commits, as they come; one message is one commit: an array of events. */
async function* events(document) {
  let version = 0;
  for (let looks = 0; looks < PATIENCE * 5; looks++) {
    const commit = await kept("EVENTS", `evt.${tenant}.document.${document}`) ?? [];
    const fresh = commit.filter((event) => event.version > version);
    if (fresh.length) {
      yield* fresh;
      version = fresh.at(-1).version;
      looks = 0;
    }
    await sleep(200);
  }
  throw new Error(`document ${document}: nothing happened for ${PATIENCE} s`);
}

/** Print the tokens of an answer as they arrive; a new attempt restarts the answer. Returns the final frame. */
async function watch(live) {
  const giveUp = () => live.unsubscribe();
  const timer = setTimeout(giveUp, PATIENCE * 1000);
  try {
    for await (const message of live) {
      const frame = message.json();
      timer.refresh();
      if (["answered", "failed", "stopped"].includes(frame.type)) return frame;
      if (frame.type !== "token") continue;
      if (options.json) show("token", frame);
      else process.stdout.write(frame.index === 0 ? `\n${frame.text}` : frame.text);
    }
    throw new Error(`no word of the answer for ${PATIENCE} s: what became of it is in the table messages`);
  } finally {
    clearTimeout(timer);
  }
}

async function main() {
  const [user, pass] = [url.username, url.password].map((part) => decodeURIComponent(part) || undefined);
  nc = await connect({ servers: url.host, user, pass, name: "headrace-example-node" });
  js = jetstream(nc);
  show("connected", { server: nc.getServer(), tenant }, `Connected to ${nc.getServer()} as tenant ${tenant}`);

  const knowledge = { name: "Reading room", description: "Made by the Node.js example" };
  const created = await accepted("dataset.create", knowledge);
  const { dataset } = created.ids;
  const outcome = await send("dataset.create", knowledge, dataset);
  const same = isDeepStrictEqual(created, outcome);
  show("repeated", { same, outcome }, `The same command again: ${same ? "the same outcome" : "ANOTHER OUTCOME"}`);

  const { ids: { document } } = await accepted("document.upload", { dataset, name: "reading-room.txt", text: TEXT });
  for await (const { type, state } of events(document)) {
    show("document", { type, document }, `  ${type}`);
    if (type === "document.failed.v1") throw new Error(`${state.stage} failed: ${state.code}: ${state.reason}`);
    if (type === "document.completed.v1") break;
  }

  const { ids: { app } } = await accepted("app.create", { name: "Reading room desk" });
  const model = { provider: "builtin", name: "extractive" };
  await accepted("app.configure", { app, model, datasets: [dataset], retrieval: { mode: "hybrid", top_k: 3 } });

  const { status, code, field, message } = await send("app.configure", { app, model, retrieval: { top_k: 0 } });
  show("rejection", { status, code, field, message }, `A bad app.configure: ${status}: ${code}, ${field}: ${message}`);

  const id = uuid7(); // of the message, and of the conversation that it starts
  const live = nc.subscribe(`live.${tenant}.${id}.${id}`);
  await accepted("message.send", { app, query: QUESTION, user: "node" }, id);
  const { type, answer, citations, usage, code: why, reason } = await watch(live);
  if (type !== "answered") throw new Error(`No answer: ${why ?? type}: ${reason ?? answer}`);
  show("answer", { conversation: id, answer, citations, usage }, `\n\n${QUESTION}\n${answer}`);
  for (const c of options.json ? [] : citations) console.log(`  [${c.position}] ${c.document_name}: "${c.sentence}"`);
}

await main().catch((error) => {
  show("error", { message: error.message }, `Stopped: ${error.message}`);
  process.exitCode = 1;
});
await nc?.close();
