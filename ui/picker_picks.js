// The picker's page side, second part: what a press means, what follows it, and how it is taken back.

const HOLD_CLEARLY_MS = 400; // an arrow held that long says "clearly"

let best = null; // index of the image marked best while its grid waits for the worst
let offer = null; // {screen, images, count}: what is left of the group just answered, which could go on
let hasSwitched = false; // the person chose the mode in this page
let held = null; // {key, timer}: the arrow of the last duel, while it is down

function press(index) {
  const screen = queue[0];
  if (!screen || index >= screen.images.length) return;
  if (screen.mode === "duel") return judgeDuel(index === 0 ? "left" : "right");
  if (screen.mode === "triage") return label("good");
  if (best === index) best = null;
  else if (best === null && screen.images.length > 2) best = index;
  else {
    const chosen = best === null ? index : best; // of two images, the one that is not best is worst
    const worst = best === null ? 1 - index : index;
    return decide({ op: "best_worst", result: [screen.images[chosen].key, screen.images[worst].key] }, chosen);
  }
  paintMarks();
}

function judgeDuel(result, isClear = false) {
  const screen = queue[0];
  if (!screen || screen.mode !== "duel") return;
  const side = ["left", "right"].indexOf(result);
  decide({ op: "duel", result, ...(isClear && side >= 0 && { clearly: true }), ...(screen.second && { second: true }) }, side);
  if (isClear && side >= 0) say("clearly better");
}

function label(result) {
  const screen = queue[0];
  if (screen && screen.mode === "triage") decide({ op: "triage", result }, result === "good" ? 0 : -1);
}

function skip() {
  if (queue[0] && queue[0].mode === "triage") label("skip");
  else judgeDuel("skip");
}

function skipGroup() {
  const screen = queue[0];
  if (!screen) return;
  // A second opinion is not given by skipping what somebody else has picked.
  if (screen.second) judgeDuel("skip");
  else decide({ op: "skip", result: screen.mode }, -1);
}

function decide(operation, flashed) {
  letGo();
  const screen = queue.shift();
  const entry = { screen, op: operation.op, dropped: [], steps: 0 };
  if (operation.op === "skip") {
    entry.dropped = queue.filter((other) => other.group === screen.group);
    queue = queue.filter((other) => other.group !== screen.group);
    entry.steps = screen.again ? 0 : 1;
    offer = null;
  } else goOn(entry, operation);
  if (flashed >= 0) flash(flashed);
  const { group, images, size } = screen; // by `size` the app knows how many of the group were not shown yet
  entry.pick = send({ ...operation, group, images: images.map((image) => image.key), size }, entry.steps);
  history.push(entry);
  isComplete = false; // what can be asked next may depend on this answer
  paint();
  afterPainting(flush);
}

// What is left of the group after an answer: the next screen of it, while it needs more pairs; else an offer.
function goOn(entry, operation) {
  const screen = entry.screen;
  offer = null;
  if (screen.mode !== "best_worst") {
    entry.steps = screen.finishes && !screen.again ? 1 : 0;
    return;
  }
  const images = screen.images.filter((image) => !operation.result.includes(image.key));
  const count = images.length + screen.rest;
  const made = 1 + history.filter((other) => other.op === "best_worst" && other.screen.group === screen.group).length;
  const isDone = screen.again || (screen.finishes ?? (made >= rules.pairs_per_group || count < 2));
  entry.steps = isDone && !screen.again ? 1 : 0;
  if (isDone) offer = count < 2 ? null : { screen, images, count };
  else if (images.length >= 2) queue.unshift(follow(screen, images));
  else first = screen.group; // only the app knows the others
}

function follow(screen, images) {
  return { ...screen, images, finishes: null };
}

function undo() {
  if (best !== null) {
    best = null;
    return paintMarks();
  }
  const entry = history.pop();
  if (!entry) return;
  letGo();
  offer = null;
  first = "";
  again = false;
  const back = [entry.screen, ...entry.dropped];
  const known = new Set(back.map(nameOf));
  // What had followed from the answer goes with it.
  queue = queue.filter((screen) => !known.has(nameOf(screen)) && !isFollowing(screen, entry));
  queue.unshift(...back);
  send({ op: "undo", undoes: entry.pick }, -entry.steps);
  isComplete = false;
  if (!entry.screen.second && entry.screen.mode !== mode) setMode(entry.screen.mode);
  paint();
  afterPainting(flush);
}

function isFollowing(screen, entry) {
  return entry.op === "best_worst" && screen.mode === "best_worst" && screen.group === entry.screen.group;
}

// ---------------------------------------------------------------- continue, move on

function continueGroup() {
  if (!offer) return;
  const { screen, images } = offer;
  if (images.length >= 2) {
    queue.unshift({ ...follow(screen, images), again: true });
    offer = null;
    return paint();
  }
  first = screen.group;
  again = isStale = true;
  offer = null;
  paintStatus();
  flush();
}

function moveOn() {
  const isContinued = queue[0] && queue[0].again;
  if (isContinued) queue = queue.filter((screen) => !screen.again);
  else if (!offer) return;
  offer = null;
  paint();
  afterPainting(flush);
}

// ---------------------------------------------------------------- clearly: the pick is made at once, and gets weight when held

function hold(key) {
  const entry = history[history.length - 1];
  const timer = setTimeout(() => {
    held = null;
    send({ op: "clearly", of: entry.pick }, 0);
    say("clearly better");
    flush();
  }, HOLD_CLEARLY_MS);
  held = { key, timer };
}

function letGo() {
  if (held) clearTimeout(held.timer);
  held = null;
}

// ---------------------------------------------------------------- modes

function useMode(wanted) {
  mode = wanted;
  queue = queue.filter((screen) => screen.mode === mode || screen.second);
  isComplete = false;
}

function setMode(wanted) {
  hasSwitched = true;
  useMode(wanted);
  trigger("switch_mode", { mode });
}

function switchMode(wanted) {
  if (wanted === mode || !MODES.includes(wanted)) return;
  setMode(wanted);
  offer = null;
  first = "";
  again = false;
  paint();
  isStale = true;
  flush();
}
