// The review's page side, first part: what is asked of the app, and what is done to pairs. review_sheet.js is the sheet,
// review_card.js one pair, review.js the rest. All run once, as one script. Prompts and names are other people's text: set as
// textContent only.
//
// What is done shows at once and waits in `outbox` until the app has stored it. Each operation has a name of its own, so that
// one whose answer was lost is sent again and counts once.

const PAGE = 48; // pairs per request
const BATCH = 200; // operations per request
const RETRY_MS = [300, 600, 1200, 2400, 5000];

const find = (selector) => element.querySelector(selector);
const review = find(".review");
const sheet = find(".sheet");
const space = find(".space");

const freshName = () => Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, "0")).join("");
const client = freshName();
let nextNumber = 0;
let outbox = [];
let last = null; // what an undo here would take back: {operations: [[client, number]], text}
let isAsking = false, failures = 0, retrying = 0;

let wanted = { words: "", source: null, rater: null, split: null, state: null, finding: null, order: "newest" };
let facts = null; // counts and what can be chosen from, of the last answer
let loaded = ""; // the revision of the last answer
let version = 0; // of what is wanted and known: pages of an older one are asked for again, and shown until the answer is there
let edits = 0; // what was done to the list here: an answer asked for before it is of another list
let items = [], versions = new Map(), total = 0; // pairs by their place, and the version of each page of them

const amount = (number, noun) => `${number.toLocaleString()} ${noun}${number === 1 ? "" : "s"}`;
const isSeen = () => review.offsetParent !== null;

// ---------------------------------------------------------------- asking the app

// The answer; null if there is none, or it says why not: then the reason is on the page.
async function ask(name, payload) {
  const answer = await question(name, payload);
  if (!answer) return null;
  const unsent = answer.isSilent && outbox.length ? ` ${amount(outbox.length, "change")} ${outbox.length === 1 ? "waits" : "wait"} here.` : "";
  setText(find(".problem"), `${answer.error || ""}${unsent}`);
  return answer.error ? null : answer;
}

// One request at a time: it carries what was done there, and a page of pairs back.
async function load() {
  if (isAsking || !props.session || !isSeen()) return;
  isAsking = true;
  clearTimeout(retrying);
  for (let number = nextPage(); number !== null || outbox.length; number = nextPage()) {
    const asked = { version, edits };
    const operations = outbox.slice(0, BATCH).map((entry) => entry.operation);
    const answer = await ask("list_pairs", { operations, wanted, start: (number || 0) * PAGE, count: number === null ? 0 : PAGE });
    if (!answer) {
      retrying = setTimeout(load, RETRY_MS[Math.min(failures++, RETRY_MS.length - 1)]);
      break;
    }
    failures = 0;
    const done = outbox.splice(0, operations.length);
    if (answer.refused.length) {
      setText(find(".problem"), `That was not done: ${answer.refused[0]}.`);
      version++;
    }
    for (const entry of done) if (entry.stored) entry.stored();
    take(answer, number, asked);
  }
  isAsking = false;
}

function take(answer, number, asked) {
  facts = answer;
  if (asked.version === version && asked.edits === edits) {
    loaded = answer.revision.join();
    total = answer.total;
    items.length = total;
    if (number !== null) {
      answer.pairs.forEach((pair, place) => (items[number * PAGE + place] = pair));
      versions.set(number, asked.version);
    }
  }
  paintTools();
  paint();
  if (answer.looking) setTimeout(lookAgain, 1000);
}

// While files are looked for, what is found of them shows.
function lookAgain() {
  version++;
  load();
}

function nextPage() {
  const isMissing = (number) => versions.get(number) !== version;
  if (!versions.size) return 0;
  const [first, end] = inSight();
  for (let number = Math.floor(first / PAGE); number * PAGE < Math.max(end, 1); number++) if (isMissing(number)) return number;
  return null;
}

// Something is wanted that was not before: the sheet begins anew.
function want(changes) {
  wanted = { ...wanted, ...changes };
  version++;
  items = [];
  versions = new Map();
  active = 0;
  sheet.scrollTop = 0;
  load();
}

// ---------------------------------------------------------------- what is done to pairs

function send(operation, stored) {
  operation = { client, number: nextNumber++, ...operation };
  outbox.push({ operation, stored });
  return [operation.client, operation.number];
}

function say(text, operations) {
  last = operations && { operations };
  setText(find(".said"), text);
  find(".line .undo").hidden = !last;
}

const did = {
  drop(index, pair) {
    if (pair.state === "deleted") return did.restore(index, pair);
    say("Deleted.", [send({ op: "drop", group: pair.group, images: pair.images })]);
    leave(index);
  },
  restore(index, pair) {
    for (const undoes of pair.dropped) send({ op: "undo", undoes });
    say("Restored.", null);
    leave(index);
  },
  swap(index, pair) {
    if (pair.state === "deleted" || pair.images.length < 2) return;
    say("Swapped.", [send({ op: "swap", group: pair.group, images: pair.images })]);
    const [chosen, rejected] = pair.images;
    items[index] = { ...pair, images: [rejected, chosen], chosen: pair.rejected, rejected: pair.chosen,
      chosen_large: pair.rejected_large, rejected_large: pair.chosen_large };
    edits++;
    if (pair.state === "proposed") confirmed(index);
  },
  keep(index, pair) {
    if (pair.state !== "proposed") return;
    say("Kept.", [send({ op: "confirm", group: pair.group, images: pair.images })]);
    edits++;
    confirmed(index);
  },
  // The group's picks count no more: it is shown in the picker as soon as the app knows.
  reopen(index, pair) {
    const { group } = pair;
    say("Opened again.", [send({ op: "reopen", group }, () => {
      version++;
      trigger("pick_group", { key: group });
    })]);
    leave(index);
  },
};

function act(name, index) {
  const pair = items[index];
  if (!pair) return;
  did[name](index, pair);
  paint();
  load();
}

// A proposal is the person's own pair now: its source and rater are another, which the app tells.
function confirmed(index) {
  if (wanted.state === "proposed") return leave(index);
  items[index] = { ...items[index], state: "used" };
  version++;
}

// The pair is not in this list any more; those after it move up.
function leave(index) {
  items.splice(index, 1);
  total = Math.max(0, total - 1);
  active = Math.max(0, Math.min(active, total - 1));
  edits++;
}

function undo() {
  if (!last) return;
  for (const undoes of last.operations) send({ op: "undo", undoes });
  say("Taken back.", null);
  version++;
  load();
}
