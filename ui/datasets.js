// The page side of datasets.py. What takes long is started here and asked about until it is over. File names and reasons are
// other people's text: set as textContent only.

const STANDING = "tell";
const find = (selector) => element.querySelector(selector);
const box = find(".datasets");
let wasSeen = false;

const isSeen = () => box.offsetParent !== null;

function paint({ task, live }) {
  paintTask(task);
  if (task) paintLeft(task);
  paintLive(live);
  return Boolean((task && !task.is_over) || (live.folder && !live.is_up_to_date && !live.error));
}

function paintLeft(task) {
  const fold = find(".left");
  fold.hidden = !task.all_left;
  if (!task.all_left) return;
  const more = task.all_left > task.left.length ? `; the first ${task.left.length.toLocaleString()} are listed` : "";
  setText(fold.querySelector("summary"), `${task.all_left.toLocaleString()} not taken${more}`);
  fold.querySelector("tbody").replaceChildren(
    ...task.left.map((line) => {
      const row = document.createElement("tr");
      for (const text of line) row.insertCell().textContent = text;
      return row;
    }),
  );
}

function paintLive(live) {
  const line = !live.folder ? "" : live.error || `${live.pairs.toLocaleString()} pair${live.pairs === 1 ? "" : "s"} in ${live.folder}, ` +
    (live.is_up_to_date ? "up to date" : "being brought up to date") +
    (live.all_left ? `; ${live.all_left.toLocaleString()} could not be copied` : "");
  setText(find(".live-line"), line);
  find(".live-line").classList.toggle("bad", Boolean(live.error));
  setText(find(".why-left"), live.left[0] || "");
  find(".stop-live").hidden = !live.folder;
  find(".finalise").hidden = !live.folder;
  const path = find(".live .path");
  if (live.folder && document.activeElement !== path && !path.value) path.value = live.folder;
}

function openPanel(name) {
  for (const button of element.querySelectorAll("[data-panel]")) {
    const isOpen = button.dataset.panel === name && button.getAttribute("aria-expanded") !== "true";
    button.setAttribute("aria-expanded", isOpen);
    find(`.panel.${button.dataset.panel}`).hidden = !isOpen;
  }
}

const share = (panel) => find(`.${panel} .share`).valueAsNumber;

for (const button of element.querySelectorAll("[data-panel]")) button.addEventListener("click", () => openPanel(button.dataset.panel));
const submits = {
  export: () => ask("begin_export", { kind: find(".kind").value, share: share("export") }),
  import: () => ask("begin_import", { path: find(".import .path").value, rows: find(".rows input").valueAsNumber }),
  live: () => ask("keep_live", { folder: find(".live .path").value }),
};
for (const [name, submit] of Object.entries(submits))
  find(`.panel.${name}`).addEventListener("submit", (event) => {
    event.preventDefault();
    submit();
  });
find(".import .path").addEventListener("input", (event) => {
  find(".rows").hidden = !/^[\w-][\w.-]*\/[\w-][\w.-]*$/.test(event.target.value.trim());
});
find(".choose").addEventListener("click", () => find(".file").click());
find(".file").addEventListener("change", async (event) => {
  const [file] = event.target.files;
  event.target.value = "";
  if (!file) return;
  find(".left").hidden = true;
  await sendFile(file, (path) => ask("begin_import", { upload: path }));
});
find(".stop-live").addEventListener("click", () => {
  find(".live .path").value = "";
  ask("keep_live", { folder: "" });
});
find(".stop-task").addEventListener("click", () => ask("stop_task"));
find(".finalise-live").addEventListener("click", () => ask("finalise_live", { share: share("finalise") }));
// The picker's keys are not meant here.
for (const name of ["keydown", "keyup"]) box.addEventListener(name, (event) => event.stopPropagation());
new ResizeObserver(() => {
  if (isSeen() && !wasSeen) look(); // it is unfolded
  wasSeen = isSeen();
}).observe(box);
watch(["session", "revision"], goOn);
if (!props.session) trigger("attach", {});
