// What the picker and the blind test show alike: two or more images as large as they go, what comes next loaded before it is
// asked for. It is part of one script with what says what is shown (picker.js, blind.js), which has
//
//   queue     screens to show; queue[0] is on screen: {mode, aspect, images: [{key, url, full, width, height, seed}]}
//   history   what can be undone, newest last, each with its `screen`
//   press(index), comeBack()    an image was clicked; somebody looks again after a while
//
// Text that comes from image metadata is set as textContent and nothing else.

const MOST_IMAGES = 9;
const MOST_ABOVE = 200, LABEL_HEIGHT = 18; // pixels
const LOADS_AT_ONCE = 5; // browsers open six connections to a server, and Gradio keeps one
const DECODED_AHEAD = 2; // screens
const MOST_PICTURES = 96; // kept, also of screens that are gone: the next duel may show one again
const NARROWER = 1.03; // another column has to make the images larger by that: a square of them is easier to compare than a row

const root = (window.gradio_config && window.gradio_config.root) || "";
const find = (selector) => element.querySelector(selector);
const picker = find(".picker"), stage = find(".stage"), edge = find(".flash");
const cells = Array.from({ length: MOST_IMAGES }, (_, index) => createCell(index));
const pictures = new Map(); // key of an image -> its <img>, loaded and decoded
let toLoad = [], loading = 0; // what is still to be loaded ahead, the nearest first
let stageSize = { width: 0, height: 0, gap: 0 }, arranged = ""; // measured when it changes, not when a key is pressed
let hovered = null, isAway = false;
stage.prepend(...cells.map((cell) => cell.button));

// ---------------------------------------------------------------- images

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
    pictures.set(image.key, shown);
  }
  return shown;
}

function load(image, priority) {
  const shown = picture(image);
  if (shown.src || !image.url) return;
  shown.fetchPriority = priority;
  shown.src = root + image.url;
  loading++;
  const next = () => {
    loading--;
    loadNext();
  };
  shown.addEventListener("load", () => isNear(image) && shown.decode().catch(() => {}));
  shown.addEventListener("load", next);
  shown.addEventListener("error", next);
}

function isNear(image) {
  return queue.slice(0, 1 + DECODED_AHEAD).some((screen) => screen.images.some((other) => other.key === image.key));
}

// What comes next is loaded before it is asked for, the nearest first, and what comes next of all is decoded. A browser
// forgets decoded pixels it has no room for, the oldest first: those decoded long ago would have to be decoded again.
function preload() {
  for (const image of queue.slice(1, 1 + DECODED_AHEAD).flatMap((screen) => screen.images)) {
    const shown = picture(image);
    if (shown.naturalWidth) shown.decode().catch(() => {});
  }
  const wanted = [...queue, ...history.slice(-3).map((entry) => entry.screen)].flatMap((screen) => screen.images);
  const keep = new Set(wanted.map((image) => image.key));
  for (const key of pictures.keys()) {
    if (pictures.size <= MOST_PICTURES) break;
    if (!keep.has(key)) pictures.delete(key);
  }
  toLoad = wanted.filter((image) => image.url && !picture(image).src);
  loadNext();
}

function loadNext() {
  while (loading < LOADS_AT_ONCE && toLoad.length) load(toLoad.shift(), "low");
}

// Shows the images of a screen, or none. `labelOf(screen, index)` says what a click on one does.
function paintCells(screen, labelOf) {
  cells.forEach(({ button, frame }, index) => {
    const image = screen && screen.images[index];
    button.hidden = !image;
    if (!image) return frame.firstChild && frame.replaceChildren();
    const shown = picture(image);
    load(image, "high");
    if (frame.firstChild !== shown) frame.replaceChildren(shown);
    frame.classList.toggle("waiting", Boolean(image.url) && !shown.complete);
    frame.classList.toggle("broken", !image.url || (shown.complete && !shown.naturalWidth));
    button.setAttribute("aria-label", labelOf(screen, index));
  });
}

// Loading what comes next and talking to the app must not delay what is asked for now.
function afterPainting(task) {
  requestAnimationFrame(() => setTimeout(task));
}

function setText(selector, text) {
  const node = find(selector);
  if (node.textContent !== text) node.textContent = text; // an unchanged status is not read out again
}

// ---------------------------------------------------------------- where it stands

// Columns that make the images largest; the cells then hug them, so that an edge is the image's edge.
function arrange() {
  const screen = queue[0];
  if (!screen || !stageSize.width) return;
  const count = screen.images.length;
  const label = screen.mode === "best_worst" ? LABEL_HEIGHT : 0;
  const wanted = [count, label, screen.aspect, stageSize.width, stageSize.height].join();
  if (wanted === arranged) return; // most screens are like the one before: nothing to lay out again
  arranged = wanted;
  let columns = 1, width = 0;
  for (let tried = 1; tried <= count; tried++) {
    const rows = Math.ceil(count / tried);
    const across = (stageSize.width - stageSize.gap * (tried - 1)) / tried;
    const down = (stageSize.height - stageSize.gap * (rows - 1)) / rows - label;
    const fits = Math.floor(Math.min(across, down * screen.aspect));
    if (fits > width * NARROWER) [columns, width] = [tried, fits];
  }
  width = Math.max(40, width);
  stage.style.setProperty("--columns", columns);
  stage.style.setProperty("--width", `${width}px`);
  stage.style.setProperty("--height", `${Math.round(width / screen.aspect)}px`);
}

// The picker fills what the window has below it. What is unfolded above it may push it down, but not squeeze it.
function fit() {
  const wasAway = isAway;
  isAway = !picker.clientWidth; // its tab is hidden
  if (isAway) return;
  const above = picker.getBoundingClientRect().top + window.scrollY;
  picker.style.setProperty("--above", `${Math.round(Math.min(above, MOST_ABOVE))}px`);
  stageSize = { width: stage.clientWidth, height: stage.clientHeight, gap: parseFloat(getComputedStyle(stage).rowGap) };
  arrange();
  if (wasAway) comeBack();
}

function flash(index) {
  if (matchMedia("(prefers-reduced-motion: reduce)").matches) return;
  const from = cells[index].frame.getBoundingClientRect(), base = stage.getBoundingClientRect();
  Object.assign(edge.style, {
    left: `${from.left - base.left}px`, top: `${from.top - base.top}px`, width: `${from.width}px`, height: `${from.height}px`,
  });
  edge.animate([{ opacity: 1 }, { opacity: 1, offset: 0.6 }, { opacity: 0 }], 120);
}
