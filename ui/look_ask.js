// Look's page side, first part: what is asked of the app, and how the job is doing. look_stage.js shows two images large,
// look_zoom.js moves them, look_view.js is the grid, the keys and what calls what. All run once, as one script.
//
// While a job runs the app is asked once a second by a plain request; at rest, only when the pulse says that a job has moved
// or when the tab is opened. Prompts and names are other people's text: set as textContent only.

const find = (selector) => element.querySelector(selector);
const look = find(".look");

let job = { key: "", is_active: false, variants: [], total: 0 }; // of the last answer
let rows = []; // those of the job that have come: {prompt, seed, images: [{full, thumb} or null]}
let asking = null, isAskedAgain = false, waiting = 0;

const isSeen = () => element.isConnected && look.offsetParent !== null;

// ---------------------------------------------------------------- asking the app

// The answer; null if there is none, or it says why not: then the reason is on the page.
async function ask(name, payload) {
  const answer = await question(name, payload);
  if (answer) setText(find(".problem"), answer.error || "");
  return answer && !answer.error ? answer : null;
}

// One question at a time; whoever asks meanwhile has it asked once more.
function load() {
  isAskedAgain = true;
  asking ||= loadAll().finally(() => {
    asking = null;
  });
  return asking;
}

async function loadAll() {
  clearTimeout(waiting);
  let answer = null;
  while (isAskedAgain && props.session && isSeen()) {
    isAskedAgain = false;
    answer = await ask("look_state", { key: job.key, have: rows.length });
    if (!answer) break;
    take(answer);
    if (rows.length < answer.made) isAskedAgain = true; // more rows than one answer carries
  }
  const isWatched = job.is_active || (!answer && props.session);
  if (isWatched && isSeen()) waiting = setTimeout(load, props.seconds * 1000);
}

function take(answer) {
  if (answer.key !== job.key) {
    rows = [];
    forget();
  }
  job = answer;
  rows.push(...answer.rows);
  paintJob();
  paintRows();
}

// ---------------------------------------------------------------- the job

function paintJob() {
  const report = job.report || {};
  setText(find(".nothing p"), job.key ? "" : job.empty || "");
  find(".nothing").hidden = Boolean(job.key) || !job.empty;
  find(".report").hidden = !job.key;
  find(".report").dataset.tone = report.tone || "calm";
  setText(find(".report h3"), report.headline || "");
  setText(find(".report p"), report.detail || "");
  find(".report .bar").hidden = !report.total;
  find(".report .bar b").style.width = `${report.total ? (100 * report.done) / report.total : 0}%`;
  find(".stop").hidden = !job.is_active;
  find(".stop").disabled = Boolean(job.is_stopping);
  find(".save").hidden = job.is_active || !rows.length;
}

function forget() {
  setText(find(".saved"), "");
  find(".download").hidden = true;
  forgetRows();
}

async function act(button, name, done) {
  button.disabled = true;
  const answer = await ask(name, { key: job.key });
  button.disabled = false;
  if (answer) done(answer);
}

find(".stop").addEventListener("click", () => act(find(".stop"), "look_stop", load));
find(".save").addEventListener("click", () =>
  act(find(".save"), "look_save", (answer) => {
    setText(find(".saved"), answer.text);
    find(".download").href = root + answer.link;
    find(".download").hidden = false;
  }));
