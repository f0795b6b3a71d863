// The picker's page side, third part: words and marks around the images (picker_stage.js). picker_sync.js holds what is shown.
// Text that comes from image metadata is set as textContent and nothing else.

const QUIET_MS = 600; // what changes back sooner is not worth saying
const SAID_MS = 1600, REFUSED_MS = 15000;

let isChosen = false; // not the whole folder is picked from
let savedState = "", savedTimer = null, saidTimer = null;

// ---------------------------------------------------------------- what is on screen

function paint() {
  const screen = queue[0];
  best = null;
  lay(false);
  paintCells(screen, cellLabel);
  picker.dataset.mode = screen ? screen.mode : mode;
  picker.dataset.state = screen ? "picking" : "waiting";
  setText(".prompt span", screen ? screen.prompt : "");
  find(".prompt").hidden = !screen;
  if (!find(".details").hidden) paintDetails();
  if (zoomed !== null) showZoom(screen ? Math.min(zoomed, screen.images.length - 1) : null);
  arrange();
  paintMarks();
  afterPainting(preload);
}

function cellLabel(screen, index) {
  if (screen.mode === "triage") return "This image is good";
  return screen.mode === "duel" ? `Pick the ${index ? "right" : "left"} image` : `Pick image ${index + 1}`;
}

function paintMarks() {
  const screen = queue[0];
  cells.forEach(({ button, mark }, index) => {
    button.classList.toggle("best", best === index);
    if (screen) mark.textContent = screen.mode !== "best_worst" ? "" : best === index ? `${index + 1} best` : `${index + 1}`;
  });
  paintStatus();
}

function paintStatus() {
  let pending = 0;
  for (const { steps } of outbox.values()) pending += steps;
  const picked = Math.max(0, Math.min(total, done + pending));
  const screen = queue[0];
  setText(".asking", screen ? question(screen) : "");
  setText(".likely", screen && screen.left > 1 ? `About ${screen.left} duels left here.` : "");
  setText(".count", total ? `${picked.toLocaleString()} of ${total.toLocaleString()}` : "");
  setText(".empty", screen ? "" : emptyText());
  find(".progress i").style.transform = `scaleX(${total ? picked / total : 0})`;
  for (const button of element.querySelectorAll(".modes button")) button.setAttribute("aria-pressed", button.dataset.mode === mode);
  for (const button of element.querySelectorAll("[data-do=undo]")) button.disabled = !history.length && best === null;
  paintOffer();
  paintSaved();
  const isLate = failures > 1 || isOffline;
  setText(".notice", isLate ? lateText() : "");
  picker.classList.toggle("late", isLate);
}

function question(screen) {
  if (screen.second) return "A second opinion: which is better?";
  if (screen.mode === "triage") return "Good or bad?";
  if (screen.mode === "duel") return "Which is better?";
  return best === null ? "Pick the best." : "Now the worst.";
}

function emptyText() {
  if (preparing) return preparing;
  if (token === null || !isComplete) return "Getting the next images.";
  if (!total && isChosen) return "No group matches what is chosen under 1 Images. Clear the filters there to pick from all.";
  if (!total) return "Nothing to pick here yet: a group needs two images of the same prompt and shape.";
  if (elsewhere) return `What is left (${elsewhere.toLocaleString()}) is with somebody else just now. It comes here if they leave it.`;
  return "Everything here is picked. Review the pairs below, or go on to Train.";
}

function lateText() {
  const why = problem || (isOffline ? "The connection is gone." : "The app does not answer.");
  if (!outbox.size) return why;
  return `${why} ${outbox.size} ${outbox.size === 1 ? "pick is" : "picks are"} waiting here, to be sent when it is back.`;
}

function paintOffer() {
  const isContinued = Boolean(queue[0] && queue[0].again);
  find(".offer").hidden = !offer && !isContinued;
  picker.classList.toggle("offering", Boolean(offer));
  if (offer) setText(".offer .words", `${offer.count} images left of the last prompt:`);
  else if (isContinued) setText(".offer .words", "The same prompt again:");
  find(".offer [data-do=continue]").hidden = !offer;
}

// "Saved" is only said of what the app has committed. Words that would change back at once are not shown at all.
function paintSaved() {
  const state = outbox.size ? "waiting" : "saved";
  const words = () => (outbox.size ? `${outbox.size} waiting` : "all saved");
  if (state === savedState) {
    if (outbox.size && find(".saved").textContent) setText(".saved", words());
    return;
  }
  savedState = state;
  setText(".saved", "");
  clearTimeout(savedTimer);
  savedTimer = setTimeout(() => setText(".saved", words()), QUIET_MS);
}

function say(text, milliseconds = SAID_MS) {
  setText(".said", text);
  clearTimeout(saidTimer);
  saidTimer = setTimeout(() => setText(".said", ""), milliseconds);
}

// ---------------------------------------------------------------- the whole prompt

function toggleDetails() {
  const details = find(".details");
  details.hidden = !details.hidden;
  find(".prompt").setAttribute("aria-expanded", !details.hidden);
  if (!details.hidden) paintDetails();
}

function paintDetails() {
  const screen = queue[0];
  if (!screen) return;
  setText(".details .whole", screen.prompt);
  setText(".details .facts", [...screen.facts, `seeds ${screen.images.map((image) => image.seed ?? "unknown").join(", ")}`].join(" · "));
}
