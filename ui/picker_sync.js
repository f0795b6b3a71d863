// The picker's page side, first part: what the page holds, and how picks get to the app. picker_picks.js makes them,
// picker.js paints. All parts run once, as one script, with Gradio's `element`, `props`, `server`, `trigger` and `watch`
// (see picker.py).
//
//   queue     screens to show; queue[0] is on screen
//   history   picks that can be undone, newest last
//   outbox    operations SQLite has not committed yet; each lies in localStorage under its own name until it has
//
// A key press changes queue, history and outbox and paints; only then the server hears of it.

const SCREENS_AHEAD = 8; // their groups are nobody else's meanwhile
const HISTORY_AHEAD = 8;
const BATCH = 100; // operations per request
const AGAIN_MS = 1000; // between questions while more is being prepared
const HEARTBEAT_MS = 10000; // what this page holds is nobody else's for 30 s after each question
const RETRY_MS = [300, 600, 1200, 2400, 5000];
const MODES = ["best_worst", "duel", "triage"];

// A fresh name for every page load: a duplicated browser tab copies its storage, and two pages with one name would
// take each other's numbers.
const client = Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, "0")).join("");
let nextNumber = 0;

let token = null, project = null, view = null, mode = MODES[0];
let left = ""; // this browser tab's name before its reload: what it held is free again
let leftMode = ""; // and the mode it was in
let first = "", again = false; // a group that was asked for: its screens come first, if `again` even when it is done
let queue = [], history = [], outbox = new Map();
let done = 0, total = 0, elsewhere = 0; // groups; `elsewhere`: open ones that other pages have
let isStale = false; // the app knows more than it told: ask, also if enough screens wait
let isComplete = false, hasOlder = true, oldest = null; // what the server said of screens and of history
let preparing = ""; // why there may be more soon: a sentence, while a scan runs
let isSyncing = false, failures = 0, problem = "", isOffline = false;
let wasHidden = false; // nobody looked at this page for a while: others may have got its groups
let rules = { pairs_per_group: 1, pairing: MODES[0], agreement: false }, newRules = null;
let agreement = "", wantsFacts = false;

// ---------------------------------------------------------------- the outbox

function storageName(operation) {
  return `image-dpo-outbox ${project} ${operation.client} ${operation.number}`;
}

// Returns [client, number], the operation's name for an undo. `steps` is how many groups it makes done.
function send(operation, steps) {
  operation = { client, number: nextNumber++, ...operation, ...(rater() && { rater: rater() }) };
  outbox.set(storageName(operation), { operation, steps });
  remember(storageName(operation), JSON.stringify(operation));
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

// A reload is not a stranger: it gives up what the page held before. Read once, so that a duplicated tab, which copies
// this storage, gives up nothing of the other's.
function readLeft() {
  try {
    left = sessionStorage.getItem("image-dpo-left") || "";
    leftMode = sessionStorage.getItem("image-dpo-mode") || "";
    for (const name of ["image-dpo-left", "image-dpo-mode"]) sessionStorage.removeItem(name);
  } catch {}
}

function writeLeft() {
  try {
    sessionStorage.setItem("image-dpo-left", client);
    sessionStorage.setItem("image-dpo-mode", mode);
  } catch {}
}

// ---------------------------------------------------------------- one request at a time, there and back

// It carries waiting operations there, and screens and undoable picks back.
async function flush() {
  if (isSyncing || token === null) return;
  const want = isComplete ? 0 : Math.max(0, SCREENS_AHEAD - queue.length);
  const recent = hasOlder && history.length < HISTORY_AHEAD ? 2 * HISTORY_AHEAD : 0;
  if (!outbox.size && want < SCREENS_AHEAD / 2 && !recent && !isStale) return;
  isSyncing = true;
  isStale = false;
  const asked = { token, view, mode, first, again, recent, rules: newRules, wasHidden };
  const names = [...outbox.keys()].slice(0, BATCH);
  const operations = names.map((name) => outbox.get(name).operation);
  const have = queue.map((screen) => ({ group: screen.group, images: screen.images.map((image) => image.key), mode: screen.mode }));
  let answer = null;
  try {
    answer = await server.sync({
      token, view, client, left, rater: rater(), mode, first, again, operations, want, have, recent, before: oldest,
      rules: newRules, facts: wantsFacts, sort: props.session && props.session.sort,
    });
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
    problem = left = "";
    if (answer.refused.length) say(`Not kept: ${answer.refused.join("; ")}.`, REFUSED_MS);
    if (newRules === asked.rules) newRules = null;
    takeRules(answer);
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
  if (asked.recent) takeHistory(answer);
  if (asked.mode !== mode || asked.first !== first || asked.again !== again) return;
  const shown = queue[0];
  const pending = new Set([...outbox.values()].map(({ operation }) => operation.group));
  const over = new Set(answer.over.filter((group) => !pending.has(group)));
  // What is on screen stays there, unless nobody looked at it meanwhile; what was asked for although it is done stays too.
  queue = queue.filter((screen, index) => (index === 0 && !asked.wasHidden) || screen.again || !over.has(screen.group));
  if (asked.wasHidden) wasHidden = false;
  const had = new Set(queue.map(nameOf));
  for (const screen of answer.screens) if (!had.has(nameOf(screen)) && !isDecided(screen)) insert(screen);
  isComplete = answer.is_complete;
  total = answer.total;
  done = answer.done;
  elsewhere = answer.waiting;
  preparing = answer.preparing;
  first = "";
  again = false;
  if (preparing && isComplete) setTimeout(askAgain, AGAIN_MS);
  if (queue[0] === shown && shown) preload();
  else paint();
}

function takeHistory(answer) {
  const known = new Set(history.map((entry) => entry.pick.join()));
  const older = answer.recent.filter((entry) => !known.has(entry.pick.join())).reverse();
  history.unshift(...older.map((entry) => ({ ...entry, dropped: [], steps: entry.op === "duel" || entry.op === "triage" ? 0 : 1 })));
  hasOlder = answer.oldest !== null;
  oldest = answer.oldest ?? oldest;
}

// A screen belongs behind those of its group; it never pushes away what is on screen, unless it was asked for.
function insert(screen) {
  const last = queue.findLastIndex((other) => other.group === screen.group);
  const answered = history.length && history[history.length - 1].screen.group;
  if (again && screen.group === first) queue.splice(queue.findLastIndex((other) => other.again) + 1, 0, { ...screen, again });
  else if (last >= 0) queue.splice(last + 1, 0, screen);
  else if (screen.group === answered) queue.splice(1, 0, screen);
  else queue.push(screen);
}

function askAgain() {
  isComplete = false;
  isStale = true;
  flush();
}

function nameOf(screen) {
  return [screen.mode, screen.group, ...screen.images.map((image) => image.key).sort()].join(" ");
}

// Decided after the request left: the answer still lists it as open.
function isDecided(screen) {
  const shows = (key) => screen.images.some((image) => image.key === key);
  for (const { operation } of outbox.values()) {
    if (operation.group !== screen.group || !operation.images) continue;
    if (operation.op === "skip") return true;
    if (operation.op !== screen.mode) continue;
    if (operation.op === "best_worst" ? operation.result.some(shows) : operation.images.every(shows)) return true;
  }
  return false;
}
