// The picker's page side, first half: what is picked, and how it gets to the app. picker.js, the second half, paints.
// Both run once, as one script, with Gradio's `element`, `props`, `server`, `trigger` and `watch` (see picker.py).
//
//   queue     screens to show; queue[0] is on screen
//   history   picks that can be undone, newest last
//   outbox    operations SQLite has not committed yet; each lies in localStorage under its own name until it has
//
// A key press changes queue, history and outbox and paints; only then the server hears of it.

const SCREENS_AHEAD = 8;
const HISTORY_AHEAD = 8;
const BATCH = 100; // operations per request
const AGAIN_MS = 1000; // between questions while more is being prepared
const RETRY_MS = [300, 600, 1200, 2400, 5000];
const MODES = ["best_worst", "duel"];

// A fresh name for every page load: a duplicated browser tab copies its storage, and two pages with one name would
// take each other's numbers.
const client = Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, "0")).join("");
let nextNumber = 0;

let token = null, project = null, view = null, mode = MODES[0];
let first = ""; // key of a group that was asked for: its screens come before all others
let queue = [], history = [], outbox = new Map();
let done = 0, total = 0;
let isStale = false; // the app knows more than it told: ask, also if enough screens wait
let isComplete = false, hasOlder = true, oldest = null; // what the server said of screens and of history
let preparing = ""; // why there may be more soon: a sentence, while a scan runs
let isSyncing = false, failures = 0, problem = "";
let best = null; // index of the image marked best while its grid waits for the worst

// ---------------------------------------------------------------- picking

function press(index) {
  const screen = queue[0];
  if (!screen || index >= screen.images.length) return;
  if (screen.mode === "duel") return decide({ op: "duel", result: index === 0 ? "left" : "right" }, index);
  if (best === index) best = null;
  else if (best === null && screen.images.length > 2) best = index;
  else {
    const chosen = best === null ? index : best; // of two images, the one that is not best is worst
    const worst = best === null ? 1 - index : index;
    return decide({ op: "best_worst", result: [screen.images[chosen].key, screen.images[worst].key] }, chosen);
  }
  paintMarks();
}

function decide(operation, flashed) {
  const screen = queue.shift();
  const entry = { screen, dropped: [] };
  if (operation.op === "skip") {
    entry.dropped = queue.filter((other) => other.group === screen.group);
    queue = queue.filter((other) => other.group !== screen.group);
  }
  entry.steps = 1 + entry.dropped.length;
  if (flashed !== null) flash(flashed);
  entry.pick = send({ ...operation, group: screen.group, images: screen.images.map((image) => image.key) }, entry.steps);
  history.push(entry);
  paint();
  afterPainting(flush);
}

function undo() {
  if (best !== null) {
    best = null;
    return paintMarks();
  }
  const entry = history.pop();
  if (!entry) return;
  queue.unshift(entry.screen, ...entry.dropped);
  send({ op: "undo", undoes: entry.pick }, -entry.steps);
  paint();
  afterPainting(flush);
}

function skipGroup() {
  if (queue[0]) decide({ op: "skip", result: queue[0].mode }, null);
}

function judgeDuel(result) {
  if (queue[0] && queue[0].mode === "duel") decide({ op: "duel", result }, null);
}

// ---------------------------------------------------------------- the outbox

function storageName(operation) {
  return `image-dpo-outbox ${project} ${operation.client} ${operation.number}`;
}

// Returns [client, number], the operation's name for an undo. `steps` is what it adds to the progress.
function send(operation, steps) {
  operation = { client, number: nextNumber++, ...operation };
  outbox.set(storageName(operation), { operation, steps });
  try {
    localStorage.setItem(storageName(operation), JSON.stringify(operation));
  } catch {} // storage full or forbidden: the pick still waits in this page
  return [operation.client, operation.number];
}

// What earlier loads of this page, or pages that were closed, could not send: sent under their own names.
function readOldOutboxes() {
  const found = [];
  try {
    for (const name of Object.keys(localStorage)) {
      if (!name.startsWith(`image-dpo-outbox ${project} `) || outbox.has(name)) continue;
      try {
        const operation = JSON.parse(localStorage.getItem(name));
        if (storageName(operation) === name) found.push(operation);
      } catch {
        localStorage.removeItem(name);
      }
    }
  } catch {} // no storage
  found.sort((one, other) => (one.client < other.client ? -1 : one.client > other.client ? 1 : one.number - other.number));
  outbox = new Map([...found.map((operation) => [storageName(operation), { operation, steps: 0 }]), ...outbox]);
}

function forget(names) {
  for (const name of names) {
    outbox.delete(name);
    try {
      localStorage.removeItem(name);
    } catch {}
  }
}

// One request at a time: it carries waiting operations there, and screens and undoable picks back.
async function flush() {
  if (isSyncing || token === null) return;
  const want = isComplete ? 0 : Math.max(0, SCREENS_AHEAD - queue.length);
  const recent = hasOlder && history.length < HISTORY_AHEAD ? 2 * HISTORY_AHEAD : 0;
  if (!outbox.size && want < SCREENS_AHEAD / 2 && !recent && !isStale) return;
  isSyncing = true;
  isStale = false;
  const asked = { token, view, mode, first, recent };
  const names = [...outbox.keys()].slice(0, BATCH);
  const operations = names.map((name) => outbox.get(name).operation);
  let answer = null;
  try {
    answer = await server.sync({ token, view, mode, first, operations, want, have: queue.map((screen) => screen.key), recent, before: oldest });
  } catch {} // no answer: the app was closed, or the connection is gone
  isSyncing = false;
  if (!answer || typeof answer !== "object") retry("");
  else if (answer.error === "token") {
    // The app does not know us any more. Picks wait here until it has given this page a new token.
    if (token === asked.token) token = null;
    if (!failures) trigger("attach", {});
    retry("");
  } else if (answer.error) retry(answer.error);
  else {
    forget(names);
    failures = 0;
    problem = "";
    if (answer.refused.length) console.warn("Picks the app refused:", answer.refused);
    take(answer, asked);
    flush();
  }
  paintStatus();
}

function retry(message) {
  problem = message;
  setTimeout(() => {
    if (token === null) trigger("attach", {});
    flush();
  }, RETRY_MS[Math.min(failures++, RETRY_MS.length - 1)]);
}

function take(answer, asked) {
  if (asked.view !== view) return;
  const older = answer.recent.map((entry) => ({ ...entry, dropped: [], steps: 1 })).reverse();
  const known = new Set(history.map((entry) => entry.pick.join()));
  history.unshift(...older.filter((entry) => !known.has(entry.pick.join())));
  if (answer.recent.length) oldest = answer.recent[answer.recent.length - 1].position;
  if (asked.recent) hasOlder = answer.recent.length === asked.recent;
  if (asked.mode !== mode || asked.first !== first) return;
  const had = new Set(queue.map((screen) => screen.key));
  queue.push(...answer.screens.filter((screen) => !had.has(screen.key) && !isDecided(screen)));
  isComplete = answer.is_complete;
  total = answer.total;
  done = answer.done;
  preparing = answer.preparing;
  first = answer.first;
  if (preparing && isComplete) setTimeout(askAgain, AGAIN_MS);
  if (had.size) preload();
  else paint();
}

function askAgain() {
  isComplete = false;
  flush();
}

// Decided after the request left: the answer still lists it as open.
function isDecided(screen) {
  for (const { operation } of outbox.values())
    if (operation.op === "skip" ? operation.group === screen.group : operation.images && operation.group === screen.group &&
      operation.images.every((key) => screen.images.some((image) => image.key === key))) return true;
  return false;
}

