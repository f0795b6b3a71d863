// The review's page side, second part: the sheet. Only the pairs in sight (and a few rows around them) are in the document,
// wherever in 20,000 they lie. All cards are of one size, measured when the width changes.

const MARGIN_ROWS = 2;
const cards = new Map(); // id of a pair, or #place while it is on its way -> its card
let active = 0; // the place that the keyboard is at
let grid = { columns: 1, width: 300, height: 220, gap: 20 };

function measure() {
  const style = getComputedStyle(review);
  const number = (name) => parseFloat(style.getPropertyValue(name));
  const gap = number("--gap"), whole = space.clientWidth;
  const columns = Math.max(1, Math.floor((whole + gap) / (number("--least") + gap)));
  const width = Math.floor((whole - gap * (columns - 1)) / columns);
  grid = { columns, width, height: Math.round((width - 6) / 2) + number("--words"), gap };
  sheet.style.setProperty("--card", `${width}px`);
  sheet.style.setProperty("--card-height", `${grid.height}px`);
}

function inSight() {
  const high = grid.height + grid.gap;
  const first = Math.max(0, Math.floor(sheet.scrollTop / high) - MARGIN_ROWS);
  const end = Math.ceil((sheet.scrollTop + sheet.clientHeight) / high) + MARGIN_ROWS;
  return [first * grid.columns, Math.min(total, end * grid.columns)];
}

function paint() {
  if (!isSeen()) return;
  const rows = Math.ceil(total / grid.columns);
  space.style.height = `${Math.max(0, rows * (grid.height + grid.gap) - grid.gap)}px`;
  sheet.style.setProperty("--rows", Math.min(rows, 4));
  const [first, end] = inSight();
  const shown = new Map();
  for (let index = first; index < end; index++) shown.set(items[index] ? items[index].id : `#${index}`, index);
  const hadFocus = space.contains(document.activeElement);
  for (const [key, card] of cards) {
    if (shown.has(key) || (card.contains(document.activeElement) && items[card.index] && items[card.index].id === key)) continue;
    card.remove();
    cards.delete(key);
  }
  for (const [key, index] of shown) {
    if (!cards.has(key)) cards.set(key, createCard());
    const card = cards.get(key);
    card.index = index;
    fillCard(card, items[index], index);
    const row = Math.floor(index / grid.columns), column = index % grid.columns;
    card.style.transform = `translate(${column * (grid.width + grid.gap)}px, ${row * (grid.height + grid.gap)}px)`;
    if (!card.isConnected) space.append(card);
  }
  if (hadFocus && !space.contains(document.activeElement)) focusActive(); // the pair that had it has left
}

const cardAt = (index) => [...cards.values()].find((card) => card.index === index);

function focusActive() {
  const card = cardAt(active);
  if (card) card.focus({ preventScroll: true });
  else sheet.focus({ preventScroll: true });
}

function activate(index) {
  active = Math.max(0, Math.min(total - 1, index));
  const top = Math.floor(active / grid.columns) * (grid.height + grid.gap);
  if (top < sheet.scrollTop) sheet.scrollTop = top;
  else if (top + grid.height > sheet.scrollTop + sheet.clientHeight) sheet.scrollTop = top + grid.height - sheet.clientHeight;
  paint();
  focusActive();
  load();
}

function onSheetKey(event) {
  if (!total || event.ctrlKey || event.metaKey || event.altKey) return;
  const page = grid.columns * Math.max(1, Math.floor(sheet.clientHeight / (grid.height + grid.gap)));
  const moves = {
    ArrowRight: active + 1, ArrowLeft: active - 1, ArrowDown: active + grid.columns, ArrowUp: active - grid.columns,
    PageDown: active + page, PageUp: active - page, Home: 0, End: total - 1,
  };
  const onButton = event.target.tagName === "BUTTON";
  if (event.key in moves) activate(moves[event.key]);
  else if (!onButton && event.key === "Enter") showLarge(active);
  else if (!onKeyOfPair(event)) return;
  event.preventDefault();
}

// What a key does to the pair that has the focus; whether it is one of ours.
function onKeyOfPair(event) {
  const action = { k: () => act("keep", active), s: () => act("swap", active), delete: () => act("drop", active), z: undo }[event.key.toLowerCase()];
  if (action && !event.repeat) action(); // a held key must not empty the sheet
  return Boolean(action);
}

let painting = 0;
sheet.addEventListener("scroll", () => {
  cancelAnimationFrame(painting);
  painting = requestAnimationFrame(() => {
    paint();
    load();
  });
});
sheet.addEventListener("keydown", onSheetKey);
sheet.addEventListener("focusin", (event) => {
  const card = event.target.closest(".card");
  if (!card || card.index === active) return;
  active = card.index;
  paint();
});
