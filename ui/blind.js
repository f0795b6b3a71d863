// The blind test's page side, first part: what the page holds, and how votes get to the app. picker_stage.js shows the images,
// picker_zoom.js one of them large, blind_keys.js has the keys. All run once, as one script.
//
//   queue     pairs to show; queue[0] is on screen. Which image is whose, this page is never told
//   history   votes that can be undone, newest last
//   outbox    operations the app has not stored yet; each lies in localStorage under its own name until it has

const SCREENS_AHEAD = 6, BATCH = 50;
const RETRY_MS = [300, 600, 1200, 2400, 5000];
const LOOK_MS = 1500; // between questions while images are made
const client = Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, "0")).join("");
const best = null; // no image is marked here: picker_zoom.js asks

let nextNumber = 0;
let token = null, view = null, project = null, login = "";
let test = "", question = "";
let queue = [], history = [], outbox = new Map();
let known = null; // the last answer
let isSyncing = false, failures = 0, problem = "", looking = 0, wantsRecent = true, wantsResult = false;

// ---------------------------------------------------------------- the outbox

const storageName = (operation) => `image-dpo-votes ${project} ${operation.client} ${operation.number}`;

const rater = () => login || remembered("image-dpo-name") || "";

function send(operation) {
  operation = { client, number: nextNumber++, ...operation };
  outbox.set(storageName(operation), operation);
  remember(storageName(operation), JSON.stringify(operation));
  return [operation.client, operation.number];
}

// What earlier loads of this page could not send goes under its own names.
function readOldOutboxes() {
  try {
    for (const name of Object.keys(localStorage).sort()) {
      if (!name.startsWith(`image-dpo-votes ${project} `) || outbox.has(name)) continue;
      try {
        const operation = JSON.parse(localStorage.getItem(name));
        if (storageName(operation) === name) outbox.set(name, operation);
      } catch {
        localStorage.removeItem(name);
      }
    }
  } catch {} // no storage
  outbox = new Map([...outbox].sort(([, one], [, other]) => one.client.localeCompare(other.client) || one.number - other.number));
}

function forget(names) {
  for (const name of names) {
    outbox.delete(name);
    try {
      localStorage.removeItem(name);
    } catch {}
  }
}

// ---------------------------------------------------------------- one request at a time, there and back

async function flush() {
  if (isSyncing || token === null) return;
  isSyncing = true;
  clearTimeout(looking);
  const asked = { test, question, token };
  const names = [...outbox.keys()].slice(0, BATCH);
  let answer = null;
  try {
    answer = await server.vote({
      token, view, test, question, rater: rater(), recent: wantsRecent, operations: names.map((name) => outbox.get(name)),
      want: Math.max(0, SCREENS_AHEAD - queue.length), have: [...queue.map((screen) => screen.item), ...pendingItems()],
    });
  } catch {} // no answer: the app was closed, or the connection is gone
  isSyncing = false;
  if (!answer || typeof answer !== "object") retry("");
  else if (answer.error === "token") {
    if (token === asked.token) token = null;
    if (!failures) trigger("attach", {});
    retry("");
  } else if (answer.error) retry(answer.error);
  else {
    forget(names);
    failures = 0;
    problem = answer.refused.length ? `Not kept: ${answer.refused.join("; ")}` : "";
    const isCurrent = asked.test === test && asked.question === question;
    if (isCurrent) take(answer);
    if (outbox.size || !isCurrent) flush();
    else {
      if (wantsResult) showResult();
      if (known && known.making && known.making.active) looking = setTimeout(() => isSeen() && flush(), LOOK_MS);
    }
  }
  paintStatus();
}

function retry(message) {
  problem = message || (failures ? "The app does not answer." : "");
  setTimeout(() => {
    if (token === null) trigger("attach", {});
    flush();
  }, RETRY_MS[Math.min(failures++, RETRY_MS.length - 1)]);
}

// Of this test and question, not stored yet.
function pendingItems() {
  const votes = [...outbox.values()].filter((operation) => operation.test === test && operation.question === question);
  return votes.map((operation) => operation.item);
}

function take(answer) {
  known = answer;
  if (!answer.tests.length) return paint();
  test = answer.test;
  question = answer.question;
  if (answer.recent) {
    const mine = new Set(history.map((entry) => entry.vote.join()));
    history.unshift(...answer.recent.filter((entry) => !mine.has(entry.vote.join())));
    wantsRecent = false;
  }
  const shown = queue[0];
  const had = new Set([...queue.map((screen) => screen.item), ...pendingItems()]);
  queue.push(...answer.screens.filter((screen) => !had.has(screen.item)));
  paintChoices();
  if (queue[0] === shown && shown) preload();
  else paint();
}

// Another test or another question is looked at.
function look(nextTest, nextQuestion) {
  [test, question] = [nextTest, nextQuestion];
  remember(`image-dpo-test ${project}`, JSON.stringify([test, question]));
  queue = [];
  history = [];
  known = null;
  wantsRecent = true;
  wantsResult = false;
  paint();
  flush();
}

// ---------------------------------------------------------------- votes

function press(index) {
  judge(index === 0 ? "left" : "right");
}

function judge(result) {
  const screen = queue.shift();
  if (!screen) return;
  const { item, images } = screen;
  const shown = images.map((image) => image.key);
  if (result !== "tie") flash(result === "left" ? 0 : 1);
  const vote = send({ op: "vote", test, item, question, images: shown, result, ...(rater() && !login && { rater: rater() }) });
  history.push({ vote, screen });
  paint();
  afterPainting(flush);
}

function undo() {
  const entry = history.pop();
  if (!entry) return;
  send({ op: "undo", undoes: entry.vote });
  queue = [entry.screen, ...queue.filter((screen) => screen.item !== entry.screen.item)];
  paint();
  afterPainting(flush);
}

function askResult() {
  wantsResult = true;
  if (outbox.size || isSyncing) flush();
  else showResult();
}

function showResult() {
  wantsResult = false;
  trigger("show_result", { test, question });
}

async function make(what) {
  let answer = null;
  try {
    answer = await server.make({ token, view, test, do: what });
  } catch {} // said by the next question
  problem = (answer && answer.error) || "";
  flush();
}

// ---------------------------------------------------------------- painting

function paint() {
  const screen = queue[0];
  lay(false);
  paintCells(screen, (shown, index) => `The ${index ? "right" : "left"} image is better`);
  picker.dataset.state = screen ? "picking" : known && !known.tests.length ? "none" : "waiting";
  setText(".of-prompt", screen ? screen.prompt : "");
  if (zoomed !== null) showZoom(screen ? zoomed : null);
  arrange();
  paintStatus();
  afterPainting(preload);
}

function paintStatus() {
  const asked = known && known.questions && known.questions.find(([name]) => name === question);
  const answer = known && known.verdict;
  const pending = [...outbox.values()].reduce((sum, operation) => sum + (operation.op === "undo" ? -1 : 1), 0);
  const done = known && known.total ? Math.max(0, Math.min(known.total, known.done + pending)) : 0;
  setText(".asked", asked ? asked[1] : "");
  setText(".empty", queue.length ? "" : emptyText());
  setText(".verdict", answer ? answer.words : "");
  setText(".needed", answer ? answer.needed : "");
  setText(".count", known && known.total ? `${done} of ${known.total}` : "");
  setText(".making .words", known && known.making ? known.making.words : "");
  setText(".notice", problem && `${problem}${outbox.size ? ` ${outbox.size} waiting here, to be sent when it is back.` : ""}`);
  const bar = find(".evidence");
  bar.querySelector("i").style.transform = `scaleX(${answer ? answer.share : 0})`;
  bar.setAttribute("aria-valuenow", Math.round(100 * (answer ? answer.share : 0)));
  picker.classList.toggle("decided", Boolean(answer && answer.decided));
  find(".making [data-make=stop]").hidden = !(known && known.making && known.making.active);
  find(".making [data-make=resume]").hidden = !(known && known.making && known.making.missing && !known.making.active);
  find(".show-result").disabled = !(answer && (answer.any || outbox.size));
  for (const button of element.querySelectorAll("[data-do=undo]")) button.disabled = !history.length;
  for (const button of element.querySelectorAll("[data-do=tie], [data-do=zoom]")) button.disabled = !queue.length;
}

function emptyText() {
  if (!known) return "Getting the next images.";
  if (!known.tests.length) return "No blind test yet. Start one under New test: you see two images of one prompt and say which is better, without knowing what made which.";
  if (known.making.active) return "The next pair is being made.";
  if (known.left && queue.length === 0 && !known.making.missing) return "Getting the next images.";
  if (known.making.missing) return "Not all images are made yet.";
  return `You have seen ${known.total === 1 ? "the one pair" : `all ${known.total} pairs`}. See the result, or let somebody else vote.`;
}

// The tests, and the questions of the one that is looked at.
function paintChoices() {
  const select = find(".tests");
  const names = known.tests.join("\n");
  if (select.dataset.names !== names) {
    select.dataset.names = names;
    select.replaceChildren(...known.tests.map((name) => new Option(name, name)));
  }
  select.value = test;
  select.hidden = known.tests.length < 2;
  const questions = find(".modes");
  questions.hidden = known.questions.length < 2;
  questions.replaceChildren(
    ...known.questions.map(([name, words]) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = { overall: "Overall", appeal: "Looks", prompt: "Prompt" }[name];
      button.title = words;
      button.dataset.question = name;
      button.setAttribute("aria-pressed", name === question);
      button.addEventListener("click", () => name !== question && look(test, name));
      return button;
    }),
  );
}
