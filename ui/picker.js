// The picker's page side, second half: painting, keys, clicks. picker_sync.js, the first half, holds what is shown.
// Text that comes from image metadata is set as textContent and nothing else.

const MOST_IMAGES = 9;
const MOST_ABOVE = 200, LABEL_HEIGHT = 22; // pixels
const HOLD_MS = 250; // a key held longer than this is held on purpose

const root = (window.gradio_config && window.gradio_config.root) || "";
const find = (selector) => element.querySelector(selector);
const picker = find(".picker");
const stage = find(".stage");
const zoom = find(".zoom");
const cells = Array.from({ length: MOST_IMAGES }, (_, index) => createCell(index));
const pictures = new Map(); // key of an image -> its <img>, loaded and decoded
let stageSize = { width: 0, height: 0, gap: 0 }, arranged = ""; // measured when it changes, not when a key is pressed
let zoomed = null, zoomPressed = 0, hovered = null;
let isChosen = false; // not the whole folder is picked from
stage.prepend(...cells.map((cell) => cell.button));

// ---------------------------------------------------------------- painting

function createCell(index) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "cell";
  button.hidden = true;
  const frame = document.createElement("span");
  frame.className = "frame";
  const mark = document.createElement("span");
  mark.className = "mark";
  button.append(frame, mark);
  button.addEventListener("click", () => press(index));
  button.addEventListener("pointerenter", () => (hovered = index));
  button.addEventListener("pointerleave", () => (hovered = null));
  return { button, frame, mark };
}

function picture(image) {
  let shown = pictures.get(image.key);
  if (!shown) {
    shown = new Image();
    shown.decoding = "sync"; // an image that is there appears in the same frame as its screen
    shown.draggable = false;
    shown.alt = image.seed === null ? "a candidate" : `seed ${image.seed}`;
    shown.classList.toggle("pixels", Math.max(image.width, image.height) <= 128);
    const mark = (name, isOn) => shown.parentElement && shown.parentElement.classList.toggle(name, isOn);
    shown.addEventListener("load", () => mark("waiting", false));
    shown.addEventListener("error", () => {
      mark("waiting", false);
      mark("broken", true);
    });
    shown.src = root + image.url;
    if (image.url) shown.decode().catch(() => {});
    pictures.set(image.key, shown);
  }
  return shown;
}

function preload() {
  const wanted = [...queue.slice(0, SCREENS_AHEAD), ...history.slice(-3).map((entry) => entry.screen)];
  const keep = new Set(wanted.flatMap((screen) => screen.images.map((image) => image.key)));
  for (const key of pictures.keys()) if (!keep.has(key)) pictures.delete(key);
  for (const screen of wanted) screen.images.forEach(picture);
}

function paint() {
  const screen = queue[0];
  best = null;
  cells.forEach(({ button, frame }, index) => {
    const image = screen && screen.images[index];
    button.hidden = !image;
    if (!image) return frame.replaceChildren();
    const shown = picture(image);
    if (frame.firstChild !== shown) frame.replaceChildren(shown);
    frame.classList.toggle("waiting", Boolean(image.url) && !shown.complete);
    frame.classList.toggle("broken", !image.url || (shown.complete && !shown.naturalWidth));
    button.setAttribute("aria-label", cellLabel(screen, index));
  });
  picker.dataset.mode = screen ? screen.mode : mode;
  picker.dataset.state = screen ? "picking" : "waiting";
  find(".prompt span").textContent = screen ? screen.prompt : "";
  find(".prompt").hidden = !screen;
  if (!find(".details").hidden) paintDetails();
  if (zoomed !== null) showZoom(screen ? Math.min(zoomed, screen.images.length - 1) : null);
  arrange();
  paintMarks();
  afterPainting(preload);
}

// Loading what comes next and talking to the app must not delay what is asked for now.
function afterPainting(task) {
  requestAnimationFrame(() => setTimeout(task));
}

function cellLabel(screen, index) {
  return screen.mode === "duel" ? `Pick the ${index ? "right" : "left"} image` : `Pick image ${index + 1}`;
}

function paintMarks() {
  const screen = queue[0];
  cells.forEach(({ button, mark }, index) => {
    button.classList.toggle("best", best === index);
    if (screen) mark.textContent = screen.mode === "duel" ? "" : best === index ? `${index + 1} best` : `${index + 1}`;
  });
  paintStatus();
}

function paintStatus() {
  let pending = 0;
  for (const { steps } of outbox.values()) pending += steps;
  const picked = Math.max(0, Math.min(total, done + pending));
  const screen = queue[0];
  const asking = !screen ? "" : screen.mode === "duel" ? "Which is better?" : best === null ? "Pick the best." : "Now the worst.";
  setText(".asking", asking);
  setText(".count", total ? `${picked.toLocaleString()} of ${total.toLocaleString()}` : "");
  setText(".empty", screen ? "" : emptyText());
  find(".progress i").style.transform = `scaleX(${total ? picked / total : 0})`;
  for (const button of element.querySelectorAll(".modes button")) button.setAttribute("aria-pressed", button.dataset.mode === mode);
  find("[data-do=undo]").disabled = !history.length && best === null;
  const waiting = `${outbox.size} ${outbox.size === 1 ? "pick is" : "picks are"} waiting; they are kept here and sent when the app answers again.`;
  const isLate = failures > 1;
  setText(".notice", !isLate ? "" : problem ? `${problem} ${outbox.size ? waiting : ""}` : outbox.size ? `The app does not answer. ${waiting}` : "The app does not answer.");
  picker.classList.toggle("late", isLate);
}

function emptyText() {
  if (preparing) return preparing;
  if (token === null || !isComplete) return "Getting the next images.";
  if (!total && isChosen) return "No group matches what is chosen under 1 Images. Clear the filters there to pick from all.";
  if (!total) return "Nothing to pick here yet: a group needs two images of the same prompt and shape.";
  return "Everything here is picked. Review the pairs below, or go on to Train.";
}

function setText(selector, text) {
  const node = find(selector);
  if (node.textContent !== text) node.textContent = text; // an unchanged status is not read out again
}

// Columns that make the images largest; the cells then hug them, so that an edge is the image's edge.
function arrange() {
  const screen = queue[0];
  if (!screen || !stageSize.width) return;
  const count = screen.images.length;
  const label = screen.mode === "duel" ? 0 : LABEL_HEIGHT;
  const wanted = [count, label, screen.aspect, stageSize.width, stageSize.height].join();
  if (wanted === arranged) return; // most screens are like the one before: nothing to lay out again
  arranged = wanted;
  let columns = 1, width = 0;
  for (let tried = 1; tried <= count; tried++) {
    const rows = Math.ceil(count / tried);
    const across = (stageSize.width - stageSize.gap * (tried - 1)) / tried;
    const down = (stageSize.height - stageSize.gap * (rows - 1)) / rows - label;
    const fits = Math.floor(Math.min(across, down * screen.aspect));
    if (fits > width) [columns, width] = [tried, fits];
  }
  width = Math.max(40, width);
  stage.style.setProperty("--columns", columns);
  stage.style.setProperty("--width", `${width}px`);
  stage.style.setProperty("--height", `${Math.round(width / screen.aspect)}px`);
}

function flash(index) {
  if (matchMedia("(prefers-reduced-motion: reduce)").matches) return;
  const from = cells[index].frame.getBoundingClientRect(), base = stage.getBoundingClientRect();
  const edge = find(".flash");
  Object.assign(edge.style, {
    left: `${from.left - base.left}px`, top: `${from.top - base.top}px`, width: `${from.width}px`, height: `${from.height}px`,
  });
  edge.animate([{ opacity: 1 }, { opacity: 1, offset: 0.6 }, { opacity: 0 }], 120);
}

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

// ---------------------------------------------------------------- zoom: one image as large as it goes, flipped in place

function showZoom(index) {
  const screen = queue[0];
  zoomed = screen ? index : null;
  zoom.hidden = zoomed === null;
  if (zoomed === null) return zoom.querySelector(".large").replaceChildren();
  const image = screen.images[index];
  const large = new Image();
  large.alt = picture(image).alt;
  large.classList.toggle("pixels", Math.max(image.width, image.height) <= 128);
  large.src = root + image.full;
  const put = (shown) => zoomed === index && zoom.querySelector(".large").replaceChildren(shown);
  const placeholder = picture(image).cloneNode();
  put(placeholder);
  large.decode().then(() => put(large), () => {});
  const name = screen.mode === "duel" ? (index ? "right" : "left") : `image ${index + 1} of ${screen.images.length}`;
  zoom.querySelector("p").textContent = `${name} · arrows flip in place · Space or Esc closes`;
}

function flip(by) {
  const count = queue[0].images.length;
  showZoom((zoomed + by + count) % count);
}

function openZoom() {
  const focused = cells.findIndex((cell) => cell.button === document.activeElement);
  const index = hovered ?? (focused >= 0 ? focused : best ?? 0);
  if (queue[0]) showZoom(Math.min(index, queue[0].images.length - 1));
}

// ---------------------------------------------------------------- keys, clicks, the page around

function switchMode(wanted) {
  if (wanted === mode || !MODES.includes(wanted)) return;
  mode = wanted;
  queue = [];
  isComplete = false;
  done = total = 0;
  trigger("switch_mode", { mode });
  paint();
  flush();
}

function showHelp(isShown) {
  find(".help").hidden = !isShown;
}

const actions = {
  undo, skip_group: skipGroup, zoom: openZoom, help: () => showHelp(find(".help").hidden),
  left: () => press(0), right: () => press(1), tie: () => judgeDuel("tie"), skip: () => judgeDuel("skip"),
};

function onKey(event) {
  if (!element.isConnected) {
    document.removeEventListener("keydown", onKey);
    return document.removeEventListener("keyup", onKeyUp);
  }
  if (!isForUs(event)) return;
  const action = keyAction(event.key);
  if (!action) return;
  event.preventDefault(); // also on repeat: a held Space or arrow must not scroll the page
  if (!event.repeat) action();
}

function isForUs(event) {
  if (element.offsetParent === null || event.defaultPrevented || event.isComposing) return false;
  if (event.ctrlKey || event.metaKey || event.altKey) return false;
  const typing = "input,textarea,select,[contenteditable=''],[contenteditable=true],[role=slider],[role=listbox],[role=dialog],#shelf";
  return isInSight() && !(event.target.closest && event.target.closest(typing));
}

// A key must not pick what nobody sees, as when the list of groups fills the window.
function isInSight() {
  const { top, bottom } = stage.getBoundingClientRect();
  return Math.min(bottom, innerHeight) - Math.max(top, 0) > (bottom - top) / 3;
}

// What a key does now, or undefined if it is not ours.
function keyAction(key) {
  if (!find(".help").hidden) return key === "?" || key === "Escape" ? () => showHelp(false) : undefined;
  const digit = /^[1-9]$/.test(key) ? Number(key) - 1 : null;
  if (zoomed !== null) {
    if (digit !== null) return () => digit < queue[0].images.length && showZoom(digit);
    return {
      ArrowLeft: () => flip(-1), ArrowRight: () => flip(1), ArrowUp: () => flip(-1), ArrowDown: () => flip(1),
      " ": () => showZoom(null), Escape: () => showZoom(null),
    }[key];
  }
  const isDuel = queue[0] && queue[0].mode === "duel";
  if (digit !== null) return () => press(digit);
  const always = {
    " ": () => {
      zoomPressed = performance.now();
      openZoom();
    },
    z: undo, s: skipGroup, "?": () => showHelp(true), Escape: best === null ? undefined : undo,
  };
  const duel = { ArrowLeft: actions.left, ArrowRight: actions.right, ArrowUp: actions.tie, ArrowDown: actions.skip };
  return (isDuel && duel[key]) || always[key.length === 1 ? key.toLowerCase() : key];
}

function onKeyUp(event) {
  if (event.key !== " " || zoomed === null || !isForUs(event)) return;
  event.preventDefault(); // or the focused button would be clicked
  if (zoomPressed && performance.now() - zoomPressed > HOLD_MS) showZoom(null);
  zoomPressed = 0;
}

function start() {
  const session = props.session;
  if (!session || !session.token || session.token === token) return;
  const isNew = session.project !== project || session.view !== view;
  token = session.token;
  if (session.project !== project) {
    project = session.project;
    outbox = new Map();
    nextNumber = 0;
  }
  if (isNew) {
    view = session.view;
    isChosen = Object.values(session.choice).some(Boolean);
    first = "";
    preparing = "";
    mode = session.mode;
    queue = [];
    history = [];
    hasOlder = true;
    oldest = null;
    done = total = 0;
    readOldOutboxes();
    paint();
  }
  if (session.first) showFirst(session.first);
  isComplete = false; // a scan may have found more
  isStale = true;
  fit();
  flush();
}

// A group was asked for: what waits goes back, and comes again after it.
function showFirst(group) {
  first = group;
  queue = [];
  paint();
  picker.scrollIntoView({ block: "end" });
  picker.focus({ preventScroll: true }); // keys are the picker's again
}

// The picker fills what the window has below it. What is unfolded above it may push it down, but not squeeze it.
function fit() {
  if (!picker.clientWidth) return; // its tab is hidden
  const above = picker.getBoundingClientRect().top + window.scrollY;
  picker.style.setProperty("--above", `${Math.round(Math.min(above, MOST_ABOVE))}px`);
  stageSize = { width: stage.clientWidth, height: stage.clientHeight, gap: parseFloat(getComputedStyle(stage).rowGap) };
  arrange();
}

document.addEventListener("keydown", onKey);
document.addEventListener("keyup", onKeyUp);
window.addEventListener("resize", fit);
for (const watched of [stage, document.body]) new ResizeObserver(fit).observe(watched);
for (const button of element.querySelectorAll("[data-do]")) button.addEventListener("click", () => actions[button.dataset.do]());
for (const button of element.querySelectorAll(".modes button")) button.addEventListener("click", () => switchMode(button.dataset.mode));
find(".prompt").addEventListener("click", toggleDetails);
find(".details").addEventListener("click", (event) => event.target === event.currentTarget && toggleDetails());
find(".help").addEventListener("click", () => showHelp(false));
zoom.querySelector(".large").addEventListener("click", () => flip(1));
zoom.querySelector("button").addEventListener("click", () => showZoom(null));
watch("session", start);
start();
