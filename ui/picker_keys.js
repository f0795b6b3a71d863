// The picker's page side, fifth part: keys, clicks and fingers.

const HOLD_MS = 250; // a key held longer than this is held on purpose
const SWIPE_PIXELS = 60, SHAKY_PIXELS = 10;
const TYPING = "input,textarea,select,[contenteditable=''],[contenteditable=true],[role=slider],[role=listbox],[role=dialog],#shelf";

let usesShortcuts = remembered("image-dpo-shortcuts") !== "off";
let touched = null; // {x, y, index, timer}: a finger on the stage
let ignoresClick = false; // the click that ends a swipe or a long press

const actions = {
  undo, skip_group: skipGroup, zoom: openZoom, help: () => showHelp(find(".help").hidden), skip, continue: continueGroup, move_on: moveOn,
  tie: () => judgeDuel("tie"), both_bad: () => judgeDuel("both_bad"), good: () => label("good"), bad: () => label("bad"),
};

function onKey(event) {
  if (!element.isConnected) return document.removeEventListener("keydown", onKey);
  const close = event.key === "Escape" && whatCloses();
  const action = close || (isForUs(event) && keyAction(event));
  if (!action) return;
  event.preventDefault(); // also on repeat: a held Space or arrow must not scroll the page
  if (!event.repeat) action();
}

// What Escape closes or cancels: the topmost thing.
function whatCloses() {
  if (element.offsetParent === null) return undefined;
  if (zoomed !== null) return () => showZoom(null);
  if (!find(".help").hidden) return () => showHelp(false);
  if (!find(".options").hidden) return () => showOptions(false);
  if (find(".who").contains(document.activeElement)) return () => answerName(null);
  if (!find(".details").hidden) return toggleDetails;
  if (best !== null) return undo;
  return offer ? moveOn : undefined;
}

function isForUs(event) {
  if (element.offsetParent === null || event.defaultPrevented || event.isComposing) return false;
  if (event.ctrlKey || event.metaKey || event.altKey) return false;
  return isInSight() && !(event.target.closest && event.target.closest(TYPING));
}

// A key must not pick what nobody sees, as when the list of groups fills the window.
function isInSight() {
  const { top, bottom } = stage.getBoundingClientRect();
  return Math.min(bottom, innerHeight) - Math.max(top, 0) > (bottom - top) / 3;
}

// What a key does now, or undefined if it is not ours.
function keyAction(event) {
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const digit = /^[1-9]$/.test(key) ? Number(key) - 1 : null;
  if (zoomed !== null) {
    const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -1, ArrowDown: 1 }[key];
    if (by) return () => flip(by);
    if (!usesShortcuts) return undefined;
    if (digit !== null) return () => digit < queue[0].images.length && showZoom(digit);
    return key === " " ? () => showZoom(null) : undefined;
  }
  if (!find(".help").hidden) return key === "?" ? () => showHelp(false) : undefined;
  if (!usesShortcuts || !find(".options").hidden) return undefined;
  if (key === "Enter") return offer || (queue[0] && queue[0].again) ? enterAction(event) : undefined;
  if (digit !== null) return () => press(digit);
  const always = {
    " ": () => {
      zoomPressed = performance.now();
      openZoom();
    },
    z: undo, s: skipGroup, c: offer ? continueGroup : undefined, "?": () => showHelp(true),
  };
  return modeKeys(event)[key] || always[key];
}

function modeKeys(event) {
  const shown = queue[0] ? queue[0].mode : "";
  if (shown === "triage")
    return { ArrowRight: actions.good, g: actions.good, ArrowLeft: actions.bad, x: actions.bad, ArrowDown: skip };
  if (shown !== "duel") return {};
  const better = (side) => () => {
    judgeDuel(side, event.shiftKey);
    if (!event.shiftKey) hold(event.key);
  };
  return {
    ArrowLeft: better("left"), ArrowRight: better("right"), ArrowUp: actions.tie, ArrowDown: skip, b: actions.both_bad,
    f: () => lay(true),
  };
}

// Enter presses the button that Tab went to; a button that was only clicked before does not catch it.
function enterAction(event) {
  const isOnButton = event.target.matches && event.target.matches("button:focus-visible, a:focus-visible, summary:focus-visible");
  return isOnButton ? undefined : moveOn;
}

function onKeyUp(event) {
  if (!element.isConnected) return document.removeEventListener("keyup", onKeyUp);
  if (held && event.key === held.key) letGo();
  if (event.key.toLowerCase() === "f") lay(false);
  if (event.key !== " " || zoomed === null || !usesShortcuts || !isForUs(event)) return;
  event.preventDefault(); // or the focused button would be clicked
  if (zoomPressed && performance.now() - zoomPressed > HOLD_MS) showZoom(null);
  zoomPressed = 0;
}

// ---------------------------------------------------------------- fingers: swipe to a side, press long for "clearly"

function onTouch(event) {
  ignoresClick = false;
  if (event.pointerType === "mouse" || !event.isPrimary) return;
  const index = cells.findIndex((cell) => cell.button.contains(event.target));
  const isDuel = queue[0] && queue[0].mode === "duel" && index >= 0;
  const timer = isDuel && setTimeout(() => endTouch(() => judgeDuel(index ? "right" : "left", true)), HOLD_CLEARLY_MS);
  touched = { x: event.clientX, y: event.clientY, timer };
}

function onTouchMove(event) {
  if (touched && Math.hypot(event.clientX - touched.x, event.clientY - touched.y) > SHAKY_PIXELS) clearTimeout(touched.timer);
}

// As with the arrow keys: the better image is on the side swiped to; in triage right is good and left is bad.
function onTouchEnd(event) {
  if (!touched) return;
  const across = event.clientX - touched.x, down = event.clientY - touched.y;
  clearTimeout(touched.timer);
  const isSwipe = Math.abs(across) > SWIPE_PIXELS && Math.abs(across) > 2 * Math.abs(down);
  if (!isSwipe || !queue[0] || queue[0].mode === "best_worst") touched = null;
  else if (queue[0].mode === "triage") endTouch(() => label(across > 0 ? "good" : "bad"));
  else endTouch(() => judgeDuel(across > 0 ? "right" : "left"));
}

function endTouch(action) {
  touched = null;
  ignoresClick = true;
  action();
}

function swallowClick(event) {
  if (!ignoresClick) return;
  ignoresClick = false;
  event.preventDefault();
  event.stopPropagation();
}

document.addEventListener("keydown", onKey);
document.addEventListener("keyup", onKeyUp);
window.addEventListener("blur", () => {
  letGo();
  lay(false);
});
stage.addEventListener("pointerdown", onTouch);
stage.addEventListener("pointermove", onTouchMove);
stage.addEventListener("pointerup", onTouchEnd);
stage.addEventListener("pointercancel", () => {
  if (touched) clearTimeout(touched.timer);
  touched = null;
});
stage.addEventListener("click", swallowClick, true);
stage.addEventListener("contextmenu", (event) => {
  if (touched || ignoresClick) event.preventDefault(); // a long press on a phone
});
const layButton = find(".lay");
layButton.addEventListener("pointerdown", () => {
  showHelp(false);
  lay(true);
});
for (const end of ["pointerup", "pointercancel"]) document.addEventListener(end, () => lay(false));
