// The picker's page side, last part: help, options, the name; what calls what; and how a page begins.

const PAIRING_HELP = {
  top_two: "The two images the ranking is least sure of. Needs the fewest duels.",
  elo: "Images with similar ratings meet. About twice as many duels.",
  swiss: "Rounds: everybody plays once a round, against an equal.",
};
let login = ""; // who logged in; then that is the name

function rater() {
  return login || remembered("image-dpo-name") || "";
}

// ---------------------------------------------------------------- help and options

function showHelp(isShown) {
  find(".help").hidden = !isShown;
}

function showOptions(isShown) {
  find(".options").hidden = !isShown;
  find(".open-options").setAttribute("aria-expanded", isShown);
  if (!isShown) {
    wantsFacts = false;
    if (element.contains(document.activeElement)) find(".open-options").focus({ preventScroll: true });
    return;
  }
  wantsFacts = isStale = true;
  paintOptions();
  flush();
}

const option = (name) => find(`.options [name=${name}]`);

function paintOptions() {
  const put = (name, value) => {
    if (document.activeElement !== option(name)) option(name).value = value;
  };
  put("pairs_per_group", rules.pairs_per_group);
  put("pairing", rules.pairing);
  put("rater", rater());
  option("agreement").checked = rules.agreement;
  option("shortcuts").checked = usesShortcuts;
  setText(".pairing-help", PAIRING_HELP[option("pairing").value] || "");
  setText(".options .agreement", agreement);
  for (const node of element.querySelectorAll(".options .name")) node.hidden = Boolean(login);
  picker.classList.toggle("no-shortcuts", !usesShortcuts);
}

function changeRules(changes) {
  rules = { ...rules, ...changes };
  newRules = { ...newRules, ...changes };
  setText(".options .problem", "");
  queue = queue.slice(0, 1).map((screen) => ({ ...screen, finishes: null })); // the others were chosen by other rules
  isStale = true;
  isComplete = false;
  paintOptions();
  flush();
}

function takeRules(answer) {
  if (answer.problem) setText(".options .problem", answer.problem);
  if (answer.agreement !== null) agreement = answer.agreement;
  if (newRules) return;
  const isNew = JSON.stringify(answer.rules) !== JSON.stringify(rules);
  rules = answer.rules;
  if (isNew || wantsFacts) paintOptions();
}

function setShortcuts(isOn) {
  usesShortcuts = isOn;
  remember("image-dpo-shortcuts", isOn ? "on" : "off");
  paintOptions();
}

// ---------------------------------------------------------------- the name: asked once, then only in the options

function paintName() {
  find(".who").hidden = Boolean(login) || remembered("image-dpo-name") !== null;
}

// `name`: null for "not now".
function answerName(name) {
  remember("image-dpo-name", (name || "").trim());
  paintName();
  paintOptions();
  picker.focus({ preventScroll: true }); // keys are the picker's again
  isStale = true; // whose picks can be undone, and which second opinions are due, depends on it
  flush();
}

// ---------------------------------------------------------------- a page begins, is left, and is looked at again

function start() {
  const session = props.session;
  if (!session || !session.token || session.token === token) return;
  const isNew = session.project !== project || session.view !== view;
  token = session.token;
  login = session.login;
  if (session.project !== project) {
    project = session.project;
    outbox = new Map();
    nextNumber = 0;
  }
  if (isNew) {
    view = session.view;
    isChosen = Object.values(session.choice).some(Boolean);
    first = preparing = "";
    queue = [];
    history = [];
    hasOlder = true;
    oldest = offer = null;
    done = total = 0;
    readOldOutboxes();
    paintName();
    paintOptions();
  }
  // What the page before its reload was in goes first: the session may not have heard of it yet.
  if (MODES.includes(leftMode)) setMode(leftMode);
  leftMode = "";
  // The first session of a load may be one that does not know yet what the browser remembers.
  if (!hasSwitched && session.mode !== mode) useMode(session.mode);
  if (isNew || !queue.length) paint();
  if (session.first) showFirst(session.first);
  isComplete = false; // a scan may have found more
  isStale = true;
  fit();
  flush();
}

// A group was asked for: what waits goes back, and comes again after it.
function showFirst(group) {
  first = group;
  again = false;
  queue = [];
  offer = null;
  paint();
  picker.scrollIntoView({ block: "end" });
  picker.focus({ preventScroll: true }); // keys are the picker's again
}

function beat() {
  if (!element.isConnected) return clearInterval(beating);
  if (document.visibilityState === "visible" && !isAway) askAgain();
}

// Somebody looks again: what others have or have done meanwhile goes, also from the screen.
function comeBack() {
  wasHidden = true;
  askAgain();
}

function setOffline(isOff) {
  isOffline = isOff;
  if (!isOff) flush();
  paintStatus();
}

readLeft();
window.addEventListener("pagehide", writeLeft);
window.addEventListener("resize", fit);
window.addEventListener("offline", () => setOffline(true));
window.addEventListener("online", () => setOffline(false));
document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && !isAway && comeBack());
const beating = setInterval(beat, HEARTBEAT_MS);
for (const watched of [stage, document.body]) new ResizeObserver(fit).observe(watched);

for (const button of element.querySelectorAll("[data-do]"))
  button.addEventListener("click", () => {
    if (button.closest(".help")) showHelp(false);
    actions[button.dataset.do]();
  });
for (const button of element.querySelectorAll(".modes button")) button.addEventListener("click", () => switchMode(button.dataset.mode));
// What was clicked by hand does not keep the focus: keys are the picker's, and no ring stays behind.
picker.addEventListener("click", (event) => {
  const button = event.detail && event.target.closest("button");
  if (button && document.activeElement === button) picker.focus({ preventScroll: true });
});
find(".prompt").addEventListener("click", toggleDetails);
find(".details").addEventListener("click", (event) => event.target === event.currentTarget && toggleDetails());
find(".help").addEventListener("click", (event) => event.target === event.currentTarget && showHelp(false));
find(".open-options").addEventListener("click", () => showOptions(find(".options").hidden));
document.addEventListener("pointerdown", (event) => {
  const isOutside = !find(".options").contains(event.target) && event.target !== find(".open-options");
  if (!find(".options").hidden && isOutside) showOptions(false);
});
option("pairs_per_group").addEventListener("change", (event) => changeRules({ pairs_per_group: Math.trunc(Number(event.target.value)) }));
option("pairing").addEventListener("change", (event) => changeRules({ pairing: event.target.value }));
option("agreement").addEventListener("change", (event) => changeRules({ agreement: event.target.checked }));
option("shortcuts").addEventListener("change", (event) => setShortcuts(event.target.checked));
option("rater").addEventListener("change", (event) => answerName(event.target.value));
find(".who").addEventListener("submit", (event) => {
  event.preventDefault();
  answerName(find(".who input").value);
});
find(".who .later").addEventListener("click", () => answerName(null));
watch("session", start);
start();
