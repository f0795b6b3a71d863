// The shelf's page side, second part: one group with its images, or the files behind one reason.

const IMAGES = 60; // of a group, asked for at once
const FILES = 40; // of a reason, on one page
const FOLLOW_MS = 150; // how long the arrow keys rest on a line before its group is opened

const paneNode = find(".pane");
let pane = { kind: "" }; // kind: "group" with key and images, "reason" with code and first, "skipped", or "" for none
let following = 0;

function closePane() {
  pane = { kind: "" };
  showPane();
  paneNode.replaceChildren();
}

function showPane() {
  paneNode.hidden = !pane.kind;
  shelf.classList.toggle("split", Boolean(pane.kind));
  paintChips();
  paintStandIns();
  paintList();
  if (pane.kind && list.offsetParent === null) find(".body").scrollIntoView({ block: "start" }); // on a phone it replaces the list
}

// The head of whatever is open: a way back, a title, and what can be done.
function paneHead(title, ...actions) {
  const head = create("header");
  const back = createButton("back", "Close", () => {
    closePane();
    list.focus({ preventScroll: true });
  });
  back.title = "Back to the groups (Esc)";
  head.append(create("h3", "", title), ...actions, back);
  return head;
}

// ---------------------------------------------------------------- a group

async function openGroup(key) {
  clearTimeout(following);
  pane = { kind: "group", key, images: [], chosen: "" };
  showPane();
  await loadImages();
}

async function loadImages() {
  const opened = pane;
  const answer = await ask("open_group", { wanted: view, key: pane.key, start: pane.images.length, count: IMAGES });
  if (!answer || pane !== opened) return;
  pane.images.push(...answer.images);
  pane.group = answer;
  paintGroup();
}

function paintGroup() {
  const { group, images } = pane;
  const pick = createButton("primary", "Pick this group", () => trigger("pick_group", { key: group.key }));
  pick.title = "Its images come next in the picker below";
  const thumbs = create("div", "thumbs");
  thumbs.append(...images.map(createImageButton));
  const about = create("p", "about", group.about);
  const nodes = [paneHead(amount(group.size, "image"), pick), create("p", "whole", group.prompt), about, thumbs];
  if (images.length < group.size) {
    const left = Math.min(IMAGES, group.size - images.length);
    nodes.push(createButton("more", `Show ${left.toLocaleString()} more`, loadImages));
  }
  nodes.push(create("div", "image"));
  paneNode.replaceChildren(...nodes);
  choose(images.some((image) => image.key === pane.chosen) ? pane.chosen : images.length ? images[0].key : "");
}

function createImageButton(image) {
  const button = createButton("candidate", undefined, () => choose(image.key));
  button.dataset.key = image.key;
  const caption = create("span", "caption", image.seed === null ? "no seed" : `${image.seed}`);
  button.append(createThumb(image.thumb, image.seed === null ? "a candidate" : `seed ${image.seed}`), caption);
  if (image.alike) {
    const mark = create("span", "alike", `alike ${image.alike}`);
    mark.title = `Nearly the same picture as the others marked "alike ${image.alike}". Such pairs teach the most.`;
    button.append(mark);
  }
  return button;
}

function choose(key) {
  pane.chosen = key;
  for (const button of paneNode.querySelectorAll(".candidate")) button.setAttribute("aria-pressed", button.dataset.key === key);
  const image = pane.images.find((other) => other.key === key);
  if (!image) return;
  const large = createThumb(image.preview, image.seed === null ? "a candidate" : `seed ${image.seed}`);
  const frame = create("a", "large");
  frame.href = root + image.full;
  frame.target = "_blank";
  frame.rel = "noopener";
  frame.title = "Open it in full size in another tab";
  frame.append(large);
  const table = create("dl");
  for (const [name, text] of image.facts) table.append(create("dt", "", name), create("dd", name === "Warning" ? "warn" : "", text));
  const words = create("div", "words");
  words.append(table, rawText(image.key));
  if (image.is_given) words.append(promptField(image.key, image.prompt));
  find(".pane .image").replaceChildren(frame, words);
}

// ---------------------------------------------------------------- files left out

function openReason(code, first = 0) {
  pane = { kind: "reason", code, first };
  showPane();
  return loadFiles();
}

async function loadFiles() {
  const opened = pane;
  const answer = await ask("list_files", { reason: pane.code, start: pane.first, count: FILES });
  if (!answer || pane !== opened) return;
  const { code, first } = pane;
  const count = answer.total;
  const nodes = [paneHead(answer.title)];
  if (answer.advice) nodes.push(create("p", "about", answer.advice));
  const files = create("ul", "files");
  files.append(...answer.files.map((file) => createFile(file, answer.takes_prompt)));
  nodes.push(files);
  if (count > FILES) {
    const turn = create("nav", "turn");
    const back = createButton("", "Previous", () => openReason(code, Math.max(0, first - FILES)));
    const on = createButton("", "Next", () => openReason(code, first + FILES));
    back.disabled = !first;
    on.disabled = first + FILES >= count;
    const last = Math.min(first + FILES, count);
    turn.append(back, create("span", "", `${(first + 1).toLocaleString()} to ${last.toLocaleString()} of ${count.toLocaleString()}`), on);
    nodes.push(turn);
  }
  const isSame = opened.isShown;
  const top = isSame ? paneNode.scrollTop : 0;
  paneNode.replaceChildren(...nodes);
  paneNode.scrollTop = top;
  opened.isShown = true;
}

// The app knows more now: the files may be others. Not while somebody types, reads, or is being answered.
function refreshFiles() {
  const isTyped = (field) => field.value !== field.defaultValue || field.matches(":focus");
  const isBusy = [...paneNode.querySelectorAll("textarea")].some(isTyped) ||
    [...paneNode.querySelectorAll(".result")].some((node) => node.textContent) || paneNode.querySelector("[aria-expanded=true]");
  if (pane.kind === "reason" && pane.isShown && !isBusy) loadFiles();
}

function createFile(file, takesPrompt) {
  const item = create("li");
  const thumb = create("span", "thumb");
  if (file.thumb) thumb.append(createThumb(file.thumb, ""));
  const words = create("div", "words");
  words.append(create("p", "name", file.name), create("p", "why", file.sentence));
  if (takesPrompt && file.key) words.append(promptField(file.key, file.prompt));
  if (file.key) words.append(rawText(file.key));
  item.append(thumb, words);
  return item;
}

function openSkipped() {
  pane = { kind: "skipped" };
  showPane();
  const files = create("ul", "files");
  for (const [name, reason] of props.skipped || []) {
    const item = create("li");
    const words = create("div", "words");
    words.append(create("p", "name", name), create("p", "why", reason));
    item.append(words);
    files.append(item);
  }
  paneNode.replaceChildren(paneHead("Not taken from the upload"), files);
}

// ---------------------------------------------------------------- typing a prompt, reading the raw text

function promptField(key, prompt) {
  const form = create("form", "give");
  const field = create("textarea");
  field.rows = 1;
  field.defaultValue = prompt; // and its value, until somebody types
  field.placeholder = "Type its prompt";
  field.setAttribute("aria-label", "The prompt of this image");
  const save = create("button", "", "Save");
  const result = create("span", "result");
  result.setAttribute("role", "status");
  form.append(field, save, result);
  field.addEventListener("input", () => {
    field.style.height = "auto";
    field.style.height = `${field.scrollHeight + 2}px`;
  });
  field.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    form.requestSubmit();
  });
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    save.disabled = true;
    const answer = await ask("give_prompt", { key, prompt: field.value });
    save.disabled = false;
    if (!answer) return;
    setText(result, answer.said);
    version++;
    load();
    loadFacts();
  });
  return form;
}

function rawText(key) {
  const holder = create("div", "raw");
  const button = createButton("quiet", "Raw text", async () => {
    if (button.getAttribute("aria-expanded") === "true") {
      button.setAttribute("aria-expanded", "false");
      return holder.replaceChildren(button);
    }
    const answer = await ask("read_raw_text", { key });
    if (!answer) return;
    button.setAttribute("aria-expanded", "true");
    const nodes = answer.texts.flatMap(({ where, text }) => [create("p", "where", where), create("pre", "", text)]);
    holder.replaceChildren(button, ...(nodes.length ? nodes : [create("p", "where", "No text was found in this file.")]));
  });
  button.setAttribute("aria-expanded", "false");
  button.title = "Everything the file says, as it says it";
  holder.append(button);
  return holder;
}

// ---------------------------------------------------------------- reasons, stand-ins

function paintChips() {
  const holder = find(".reasons");
  const entries = facts ? facts.reasons.map(([code, text]) => ({ text, isOpen: pane.kind === "reason" && pane.code === code, open: () => openReason(code) })) : [];
  const skipped = (props.skipped || []).length;
  if (skipped) entries.push({ text: `${skipped.toLocaleString()} not taken`, isOpen: pane.kind === "skipped", open: openSkipped });
  const painted = JSON.stringify(entries);
  if (holder.dataset.painted === painted) return;
  holder.dataset.painted = painted;
  holder.hidden = !entries.length;
  holder.replaceChildren(create("span", "", "Left out:"), ...entries.map(({ text, isOpen, open }) => {
    const chip = createButton("chip", text, isOpen ? closePane : open);
    chip.setAttribute("aria-pressed", isOpen);
    return chip;
  }));
}

// Where a prompt may come from when a file says none. Not shown in a folder that does not need it.
function paintStandIns() {
  const holder = find(".stand-ins");
  const chosen = facts && facts.stand_ins;
  const isOpen = pane.kind === "reason" && facts && facts.silent.includes(pane.code);
  const isUseful = facts && facts.images && (facts.silent.length > 0 && (isOpen || !facts.groups));
  holder.hidden = !(chosen && (chosen.sidecar || chosen.folder_name || chosen.pixels || chosen.table || isUseful));
  if (!chosen) return;
  find("[data-stand-in=sidecar]").checked = chosen.sidecar;
  find("[data-stand-in=folder_name]").checked = chosen.folder_name;
  find("[data-stand-in=pixels]").checked = chosen.pixels;
  find("[data-stand-in=table]").checked = Boolean(chosen.table);
  const path = find(".table-path");
  if (document.activeElement !== path) path.value = chosen.table || path.value;
}

async function setStandIns(changes) {
  const chosen = { ...facts.stand_ins, ...changes };
  holdStandIns(true);
  const answer = await ask("choose_stand_ins", { chosen });
  holdStandIns(false);
  if (!answer) return paintStandIns();
  version++;
  await loadFacts();
  load();
  if (pane.kind === "reason") loadFiles();
}

function holdStandIns(isBusy) {
  for (const input of element.querySelectorAll(".stand-ins :is(input, button)")) input.disabled = isBusy;
  find(".stand-ins").classList.toggle("busy", isBusy);
}
