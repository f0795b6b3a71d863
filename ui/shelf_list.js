// The shelf's page side, first part: what is asked of the app, the view, and the list of groups. shelf_pane.js shows one
// group or the files left out; shelf_upload.js takes files in; shelf.js wires them. All run once, as one script.
//
// The list may have 50,000 lines. Only those in sight (and a few around them) are in the document, and they are asked for
// a page at a time, when they come into sight. Prompts and names are other people's text: set as textContent only.

const ROW = 56; // pixels, as in shelf.css
const MARGIN_ROWS = 6;
const PAGE = 60; // lines per request
const MOST_PAGES = 10; // kept; further ones are asked for again
const TYPING_MS = 250;
const SLOW_MS = 200; // an answer that takes longer is announced

const find = (selector) => element.querySelector(selector);
const shelf = find(".shelf");
const list = find(".list");
const space = find(".space");

let folder = null; // what is shown; null before the app said anything
let view = {}, sort = "path"; // as typed here; the app is told a moment later
let isTouched = false; // something was chosen here: what the app remembers is older
let facts = null, factsVersion = -1; // of the folder: counts, values to filter by, files left out
let pages = new Map(); // number -> {lines, version}
let version = 0; // of what the app knows: pages of an older one are asked for again, and shown until the answer is there
let total = 0, active = -1;
let isLoading = false, typing = 0;
const rows = new Map(); // index of a line -> its element

const isSeen = () => shelf.offsetParent !== null;

const amount = (number, noun) => `${number.toLocaleString()} ${noun}${number === 1 ? "" : "s"}`;

// ---------------------------------------------------------------- asking the app

// The answer, or null: then the reason is on the page, or a new token is on its way and `start` runs again.
async function ask(name, payload) {
  const answer = await question(name, payload);
  if (answer) say(answer.error || "");
  return answer && !answer.error ? answer : null;
}

function say(text) {
  setText(find(".problem"), text);
}

// ---------------------------------------------------------------- the view

function start() {
  if (!props.session) return trigger("attach", {}); // built only now, and Gradio forgets what it was sent before
  const isNew = props.session.folder !== folder;
  if (isNew || (!isTouched && JSON.stringify([view, sort]) !== JSON.stringify([props.session.choice, props.session.sort]))) {
    folder = props.session.folder;
    view = { ...props.session.choice };
    sort = props.session.sort;
    isTouched = false;
    facts = null;
    forgetPages();
    closePane();
  }
  version++;
  if (!isSeen()) return; // folded away: it is asked for when it is unfolded
  loadFacts();
  load();
  refreshFiles();
}

async function loadFacts() {
  const asked = folder;
  factsVersion = version;
  const answer = await ask("list_facts", { wanted: view });
  if (!answer || asked !== folder) return;
  facts = answer;
  paintTools();
  paintChips();
  paintStandIns();
}

// Something of the view was changed here. The list follows at once; the picker and the next reload hear of it.
function change(changes) {
  isTouched = true;
  view = { ...view, ...changes };
  clearTimeout(typing);
  typing = setTimeout(() => {
    forgetPages();
    load();
    loadFacts();
    trigger("narrow", { view, sort });
  }, "search" in changes ? TYPING_MS : 0);
}

function forgetPages() {
  pages = new Map();
  active = -1;
  list.scrollTop = 0;
}

const FILTERS = ["search", "generator", "model", "size", "since", "until"];
const isFiltered = () => FILTERS.some((name) => view[name]);

function paintTools() {
  const search = find(".search");
  if (document.activeElement !== search) search.value = view.search || "";
  for (const select of element.querySelectorAll("select[data-filter]")) {
    const name = select.dataset.filter;
    const values = facts.facets[name] || [];
    const chosen = view[name] || "";
    const known = values.some(([value]) => value === chosen);
    const options = [["", select.dataset.any], ...values.map(([value, count]) => [value, `${value} (${count.toLocaleString()})`])];
    if (chosen && !known) options.push([chosen, chosen]);
    if (JSON.stringify(options) !== select.dataset.options) {
      select.replaceChildren(...options.map(([value, text]) => new Option(text, value)));
      select.dataset.options = JSON.stringify(options);
    }
    select.value = chosen;
    select.classList.toggle("on", Boolean(chosen));
    select.hidden = values.length < 2 && !chosen; // one value filters nothing
  }
  for (const input of element.querySelectorAll("input[type=date]")) input.value = view[input.dataset.filter] || "";
  for (const box of element.querySelectorAll(".grouping input")) box.checked = Boolean(view[box.dataset.option]);
  const dates = view.since && view.until ? `${view.since} to ${view.until}` : view.since ? `from ${view.since}` : view.until ? `to ${view.until}` : "Any date";
  setText(find(".dates summary"), dates);
  find(".dates").classList.toggle("on", dates !== "Any date");
  find(".grouping").classList.toggle("on", [...element.querySelectorAll(".grouping input")].some((box) => box.checked));
  find(".order").value = sort;
  shelf.dataset.state = facts.images ? "full" : "empty";
  paintAmount();
}

function paintAmount() {
  const groups = facts ? facts.groups : total;
  const text = !facts ? "" : isFiltered() ? `${total.toLocaleString()} of ${amount(groups, "group")}` : amount(groups, "group");
  setText(find(".amount span"), text);
  find(".amount button").hidden = !isFiltered();
  shelf.classList.toggle("no-groups", Boolean(facts) && !groups);
  setText(find(".nothing"), !facts || total ? "" : groups ? "No group matches. Search for less, or clear the filters." : facts.advice);
}

function clearFilters() {
  find(".search").value = "";
  change(Object.fromEntries(FILTERS.map((name) => [name, ""])));
}

// ---------------------------------------------------------------- the list

const lineAt = (index) => {
  const page = pages.get(Math.floor(index / PAGE));
  return page && page.lines[index % PAGE];
};

function inSight(margin) {
  const first = Math.max(0, Math.floor(list.scrollTop / ROW) - margin);
  return [first, Math.min(total, Math.ceil((list.scrollTop + list.clientHeight) / ROW) + margin)];
}

// One request at a time, for what is in sight when it is made: a scrollbar dragged past asks for nothing on the way.
async function load() {
  if (isLoading || !props.session) return;
  isLoading = true;
  const slow = pages.size ? 0 : setTimeout(() => setText(find(".amount span"), "Looking for the groups."), SLOW_MS);
  for (let number = nextPage(); number !== null; number = nextPage()) {
    const asked = { folder, view, sort, version };
    const answer = await ask("list_lines", { wanted: view, sort, start: number * PAGE, count: PAGE });
    if (!answer) break;
    if (asked.folder !== folder || asked.view !== view || asked.sort !== sort) continue;
    pages.set(number, { lines: answer.lines, version: asked.version });
    total = answer.total;
    clearTimeout(slow);
    dropFarPages(number);
    paintList();
  }
  clearTimeout(slow);
  isLoading = false;
}

// The first page in sight that is not there, or is older than what the app knows.
function nextPage() {
  const isMissing = (number) => !pages.has(number) || pages.get(number).version !== version;
  if (!pages.size) return 0;
  const [first, end] = inSight(MARGIN_ROWS);
  for (let number = Math.floor(first / PAGE); number * PAGE < Math.max(end, 1); number++) if (isMissing(number)) return number;
  return null;
}

function dropFarPages(around) {
  const farthest = () => [...pages.keys()].reduce((far, number) => (Math.abs(number - around) > Math.abs(far - around) ? number : far));
  while (pages.size > MOST_PAGES) pages.delete(farthest());
}

function paintList() {
  space.style.height = `${total * ROW}px`;
  find(".body").style.setProperty("--rows", total);
  const [first, end] = inSight(MARGIN_ROWS);
  for (const [index, row] of rows) {
    if (index >= first && index < end) continue;
    row.remove();
    rows.delete(index);
  }
  for (let index = first; index < end; index++) {
    if (!rows.has(index)) rows.set(index, createRow(index));
    paintRow(rows.get(index), index);
  }
  paintAmount();
}

function createRow(index) {
  const row = create("div", "row");
  row.setAttribute("role", "option");
  row.id = `shelf-row-${index}`;
  row.style.transform = `translateY(${index * ROW}px)`;
  const thumb = create("span", "thumb");
  row.append(thumb, create("span", "prompt"), create("span", "size"), create("span", "picked"), create("span", "newest"));
  row.addEventListener("click", () => {
    activate(index);
    openActive();
  });
  space.append(row);
  return row;
}

function paintRow(row, index) {
  const line = lineAt(index);
  const isOpen = Boolean(line) && pane.kind === "group" && pane.key === line.key;
  row.classList.toggle("active", index === active);
  row.classList.toggle("open", isOpen);
  row.setAttribute("aria-selected", isOpen);
  row.setAttribute("aria-posinset", index + 1);
  row.setAttribute("aria-setsize", total);
  const painted = line ? JSON.stringify(line) : "";
  if (row.dataset.line === painted) return; // nothing on screen loads again
  row.dataset.line = painted;
  const [thumb, prompt, size, picked, newest] = row.children;
  row.classList.toggle("loading", !line);
  thumb.replaceChildren(...(line ? [createThumb(line.thumb, "")] : []));
  setText(prompt, line ? line.prompt : "");
  setText(size, line ? amount(line.size, "image") : "");
  setText(picked, line ? line.picked : "");
  setText(newest, line ? line.newest : "");
}

function createThumb(url, alt) {
  const image = new Image();
  image.alt = alt;
  image.draggable = false;
  image.addEventListener("load", () => image.classList.toggle("pixels", Math.max(image.naturalWidth, image.naturalHeight) <= 128));
  image.addEventListener("error", () => image.classList.add("broken"));
  image.src = root + url;
  return image;
}

function activate(index) {
  active = Math.max(0, Math.min(total - 1, index));
  const top = active * ROW;
  if (top < list.scrollTop) list.scrollTop = top;
  else if (top + ROW > list.scrollTop + list.clientHeight) list.scrollTop = top + ROW - list.clientHeight;
  list.setAttribute("aria-activedescendant", `shelf-row-${active}`);
  paintList();
  load();
}

function openActive() {
  const line = lineAt(active);
  if (line) openGroup(line.key);
}

function onListKey(event) {
  if (!total || event.ctrlKey || event.metaKey || event.altKey) return;
  const page = Math.max(1, Math.floor(list.clientHeight / ROW) - 1);
  const moves = { ArrowDown: active + 1, ArrowUp: active - 1, PageDown: Math.max(active, 0) + page, PageUp: active - page, Home: 0, End: total - 1 };
  if (event.key in moves) activate(moves[event.key]);
  else if (event.key === "Enter" || event.key === " ") openActive();
  else return;
  event.preventDefault();
}
