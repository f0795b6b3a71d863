// The blind test's page side, last part: keys and fingers as in the picker's duels, the name, and how a page begins.

const HOLD_MS = 250; // a key held longer than this is held on purpose
const SWIPE_PIXELS = 60;
const TYPING = "input,textarea,select,[contenteditable=''],[contenteditable=true],[role=slider],[role=listbox],[role=dialog]";

const usesShortcuts = remembered("image-dpo-shortcuts") !== "off"; // switched in the picker's options
const actions = { undo, tie: () => judge("tie"), zoom: openZoom };
let touched = null, ignoresClick = false;

const isSeen = () => element.isConnected && element.offsetParent !== null && document.visibilityState === "visible";

function onKey(event) {
  if (!element.isConnected) return document.removeEventListener("keydown", onKey);
  const action = event.key === "Escape" && zoomed !== null ? () => showZoom(null) : isForUs(event) && keyAction(event);
  if (!action) return;
  event.preventDefault(); // also on repeat: a held Space or arrow must not scroll the page
  if (!event.repeat) action();
}

function isForUs(event) {
  if (element.offsetParent === null || event.defaultPrevented || event.isComposing) return false;
  if (event.ctrlKey || event.metaKey || event.altKey || (event.target.closest && event.target.closest(TYPING))) return false;
  const { top, bottom } = stage.getBoundingClientRect(); // a key must not vote on what nobody sees
  return Math.min(bottom, innerHeight) - Math.max(top, 0) > (bottom - top) / 3;
}

function keyAction(event) {
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (zoomed !== null) {
    if (["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown"].includes(key)) return () => flip(1);
    return key === " " && usesShortcuts ? () => showZoom(null) : undefined;
  }
  if (!usesShortcuts) return undefined;
  const zoomIn = () => {
    zoomPressed = performance.now();
    openZoom();
  };
  const keys = { ArrowLeft: () => judge("left"), ArrowRight: () => judge("right"), ArrowUp: actions.tie, f: () => lay(true), " ": zoomIn };
  return queue.length ? { ...keys, z: undo }[key] : { z: undo }[key];
}

function onKeyUp(event) {
  if (!element.isConnected) return document.removeEventListener("keyup", onKeyUp);
  if (event.key.toLowerCase() === "f") lay(false);
  if (event.key !== " " || zoomed === null || !usesShortcuts || !isForUs(event)) return;
  event.preventDefault(); // or the focused button would be clicked
  if (zoomPressed && performance.now() - zoomPressed > HOLD_MS) showZoom(null);
  zoomPressed = 0;
}

// The better image is on the side swiped to.
function onTouchEnd(event) {
  if (!touched) return;
  const across = event.clientX - touched.x, down = event.clientY - touched.y;
  touched = null;
  if (Math.abs(across) < SWIPE_PIXELS || Math.abs(across) < 2 * Math.abs(down) || !queue.length) return;
  ignoresClick = true;
  judge(across > 0 ? "right" : "left");
}

function paintName() {
  find(".who").hidden = Boolean(login) || remembered("image-dpo-name") !== null;
}

// `name`: null for "not now". Whose votes these are decides what is shown next.
function answerName(name) {
  remember("image-dpo-name", (name || "").trim());
  paintName();
  picker.focus({ preventScroll: true });
  look(test, question);
}

// Somebody looks again: images may have been made meanwhile. What led here, such as the switch between Look and Test, must not
// keep the arrow keys.
function comeBack() {
  const active = document.activeElement;
  if (!active || !active.matches("textarea, input:not([type=radio])")) picker.focus({ preventScroll: true });
  flush();
}

function start() {
  const session = props.session;
  if (!session || !session.token || session.token === token) return;
  const isNew = session.project !== project;
  [token, view, login] = [session.token, session.view, session.login];
  if (isNew) {
    project = session.project;
    readOldOutboxes();
    try {
      [test, question] = JSON.parse(remembered(`image-dpo-test ${project}`)) || ["", ""];
    } catch {} // not ours: the newest test, its first question
    paintName();
    paint();
  }
  fit();
  if (!isAway) comeBack();
  else if (outbox.size) flush(); // what nobody looks at loads nothing
}

// A test was started: it is the one to look at.
function begin() {
  if (props.started && props.started[0] && props.started[0] !== test) look(props.started[0], "");
  else flush();
}

document.addEventListener("keydown", onKey);
document.addEventListener("keyup", onKeyUp);
window.addEventListener("blur", () => lay(false));
window.addEventListener("resize", fit);
window.addEventListener("online", flush);
document.addEventListener("visibilitychange", () => isSeen() && flush());
for (const watched of [stage, document.body]) new ResizeObserver(fit).observe(watched);

stage.addEventListener("pointerdown", (event) => {
  ignoresClick = false;
  if (event.pointerType !== "mouse" && event.isPrimary) touched = { x: event.clientX, y: event.clientY };
});
stage.addEventListener("pointerup", onTouchEnd);
stage.addEventListener("pointercancel", () => (touched = null));
stage.addEventListener(
  "click",
  (event) => {
    if (!ignoresClick) return;
    ignoresClick = false;
    event.preventDefault();
    event.stopPropagation();
  },
  true,
);
const flipButton = find(".flip");
flipButton.addEventListener("pointerdown", () => lay(true));
flipButton.addEventListener("contextmenu", (event) => event.preventDefault()); // a long press on a phone
for (const end of ["pointerup", "pointercancel"]) document.addEventListener(end, () => lay(false));
for (const button of element.querySelectorAll("[data-do]")) button.addEventListener("click", () => actions[button.dataset.do]());
for (const button of element.querySelectorAll("[data-make]")) button.addEventListener("click", () => make(button.dataset.make));
// What was clicked by hand does not keep the focus: keys are the test's again.
picker.addEventListener("click", (event) => {
  const button = event.detail && event.target.closest("button");
  if (button && document.activeElement === button) picker.focus({ preventScroll: true });
});
find(".show-result").addEventListener("click", askResult);
find(".tests").addEventListener("change", (event) => look(event.target.value, ""));
find(".who").addEventListener("submit", (event) => {
  event.preventDefault();
  answerName(find(".who input").value);
});
find(".who .later").addEventListener("click", () => answerName(null));
watch("session", start);
watch("started", begin);
start();
