// The page side of scorers_part.py. Scoring is started here and asked about until it is over. Names and reasons are other
// people's text: set as textContent only.

const AGAIN_MS = 1000; // between questions while a scorer is at work
const find = (selector) => element.querySelector(selector);
const box = find(".scorers");
const kind = find(".kind"), model = find(".model"), run = find(".run");
let asking = 0;

const isSeen = () => box.offsetParent !== null;
const chosen = () => ({ kind: kind.value, model: kind.value === "adapter" ? run.value : model.value });

// What is asked is answered with how everything stands, or with why not.
async function ask(name, payload = {}) {
  clearTimeout(asking);
  const answer = await question(name, { ...chosen(), ...payload });
  if (!answer) return;
  if (!answer.error) return paint(answer, name);
  setText(find(".problem"), answer.error);
  if (answer.isSilent) asking = setTimeout(look, 3 * AGAIN_MS);
}

function look() {
  if (isSeen()) ask("tell_scores");
}

function paint(answer, name) {
  const { job } = answer;
  const isActive = Boolean(job && job.is_active);
  setText(find(".problem"), job ? job.error : "");
  setText(find(".job"), job ? job.text : "");
  find(".bar").hidden = !isActive || !job.total;
  find(".bar b").style.width = `${job && job.total ? (100 * job.done) / job.total : 0}%`;
  find("[type=submit]").disabled = isActive;
  find(".stop").hidden = !isActive;
  if (!isActive) setText(find(".facts"), answer.facts);
  if (name !== "tell_scores") setText(find(".said"), answer.said || "");
  for (const button of [find(".propose"), find(".automatic")]) button.disabled = isActive || !answer.facts;
  offer(find(".discard-proposed"), answer.proposed, "unconfirmed");
  offer(find(".discard-used"), answer.used, "automatic");
  const known = Array.from(run.options, (option) => option.value);
  if (JSON.stringify(known) !== JSON.stringify(answer.runs)) {
    const before = run.value;
    run.replaceChildren(...answer.runs.map((text) => new Option(text, text)));
    if (answer.runs.includes(before)) run.value = before;
    if (kind.value === "adapter") look();
  }
  if (isActive) asking = setTimeout(look, AGAIN_MS);
}

function offer(button, number, what) {
  button.hidden = !number;
  setText(button, number === 1 ? `Discard the one that is ${what}` : `Discard the ${number.toLocaleString()} ${what}`);
}

function showKind() {
  const isRun = kind.value === "adapter";
  model.hidden = isRun;
  run.hidden = !isRun;
  const { usual } = kind.selectedOptions[0].dataset;
  model.placeholder = usual ? `${usual}, or a folder` : "The head: a .safetensors file, or a folder with it";
}

kind.addEventListener("change", () => {
  model.value = "";
  showKind();
  look();
});
for (const field of [model, run]) field.addEventListener("change", look);
find("form").addEventListener("submit", (event) => {
  event.preventDefault();
  ask("begin_scoring");
});
find(".stop").addEventListener("click", () => ask("stop_scoring"));
find(".propose").addEventListener("click", () => ask("add_pairs", { automatic: false }));
find(".automatic").addEventListener("click", () => ask("add_pairs", { automatic: true }));
find(".discard-proposed").addEventListener("click", () => ask("discard_pairs", { automatic: false }));
find(".discard-used").addEventListener("click", () => ask("discard_pairs", { automatic: true }));
// The picker's keys are not meant here: none that is pressed in this part goes further.
for (const name of ["keydown", "keyup"]) box.addEventListener(name, (event) => event.stopPropagation());
let wasSeen = false;
new ResizeObserver(() => {
  if (isSeen() && !wasSeen) look(); // unfolded
  wasSeen = isSeen();
}).observe(box);
watch(["session", "revision"], look);
showKind();
look();
