// Look's page side, third part: zoom and pan of both windows at once, and what a pointer does in each mode. See look_ask.js.
//
// The images stand at (left, upper) and are `zoom` times as large as their window; left and upper are shares of the window's sides,
// from 1 - zoom to 0, so that no edge leaves its window.

const MOST_ZOOM = 16;
const DOUBLE_CLICK_ZOOM = 3;
const KEY_ZOOM = 1.5; // for each press of + or -
let zoom = 1, left = 0, upper = 0;
const pointers = new Map(); // id -> [x, y] in the window it went down in, as shares of its sides
let drags = ""; // "divider" or "images", while one pointer is down

function moveTo(newZoom, newLeft, newUpper) {
  zoom = Math.max(1, Math.min(MOST_ZOOM, newZoom));
  left = Math.max(1 - zoom, Math.min(0, newLeft));
  upper = Math.max(1 - zoom, Math.min(0, newUpper));
  stage.style.setProperty("--zoom", zoom);
  stage.style.setProperty("--left", `${100 * left}%`);
  stage.style.setProperty("--top", `${100 * upper}%`);
  stage.classList.toggle("zoomed", zoom > 1);
  setText(find(".zooming .amount"), `${Math.round(100 * zoom)}%`);
}

// Zoom so that the point of the image at (x, y) of the window stays there.
function zoomAt([x, y], factor) {
  const next = Math.max(1, Math.min(MOST_ZOOM, zoom * factor));
  moveTo(next, x - ((x - left) / zoom) * next, y - ((y - upper) / zoom) * next);
}

const CENTRE = [0.5, 0.5];
const windowOf = (event) => event.target.closest(".window");

function shares(event, frame) {
  const box = frame.getBoundingClientRect();
  return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
}

stage.addEventListener("wheel", (event) => {
  const frame = windowOf(event);
  if (!frame || (zoom === 1 && event.deltaY > 0)) return; // as small as it gets: the page scrolls
  event.preventDefault();
  zoomAt(shares(event, frame), Math.exp(-event.deltaY * (event.ctrlKey ? 0.01 : 0.002))); // a pinch on a touchpad comes with ctrl
}, { passive: false });

stage.addEventListener("dblclick", (event) => {
  const frame = windowOf(event);
  if (!frame) return;
  if (zoom > 1) moveTo(1, 0, 0);
  else zoomAt(shares(event, frame), DOUBLE_CLICK_ZOOM);
});

stage.addEventListener("pointerdown", (event) => {
  const frame = windowOf(event);
  if (!frame || event.button !== 0) return;
  frame.setPointerCapture(event.pointerId);
  pointers.set(event.pointerId, shares(event, frame));
  const movesDivider = mode === "slider" && (zoom === 1 || event.target.closest(".divider"));
  drags = pointers.size > 1 ? "" : movesDivider ? "divider" : "images";
  if (drags === "divider") setDivide(100 * shares(event, frame)[0]);
  if (mode === "flip") flip(pointers.size === 1);
});

stage.addEventListener("pointermove", (event) => {
  const before = pointers.get(event.pointerId);
  const frame = windowOf(event);
  if (!before || !frame) return;
  const now = shares(event, frame);
  const other = [...pointers].find(([id]) => id !== event.pointerId);
  pointers.set(event.pointerId, now);
  if (other) {
    const [, still] = other;
    const apart = (from) => Math.hypot(from[0] - still[0], from[1] - still[1]);
    const middle = [(now[0] + still[0]) / 2, (now[1] + still[1]) / 2];
    zoomAt(middle, apart(now) / Math.max(0.01, apart(before)));
  } else if (drags === "divider") setDivide(100 * now[0]);
  else if (zoom > 1) moveTo(zoom, left + now[0] - before[0], upper + now[1] - before[1]);
});

for (const name of ["pointerup", "pointercancel", "lostpointercapture"])
  stage.addEventListener(name, (event) => {
    if (!pointers.delete(event.pointerId)) return;
    drags = "";
    flip(false);
  });
stage.addEventListener("contextmenu", (event) => mode === "flip" && event.preventDefault()); // a long press on a phone

find(".zooming .in").addEventListener("click", () => zoomAt(CENTRE, KEY_ZOOM));
find(".zooming .out").addEventListener("click", () => zoomAt(CENTRE, 1 / KEY_ZOOM));
find(".zooming .amount").addEventListener("click", () => moveTo(1, 0, 0));
