// The shelf's page side, last part: what calls what. See shelf_list.js.

function onShelfKey(event) {
  if (event.key !== "Escape" || !pane.kind) return;
  event.preventDefault();
  event.stopPropagation();
  closePane();
  list.focus({ preventScroll: true });
}

let painting = 0;
list.addEventListener("scroll", () => {
  cancelAnimationFrame(painting);
  painting = requestAnimationFrame(() => {
    paintList();
    load();
  });
});
list.addEventListener("keydown", (event) => {
  onListKey(event);
  if (!event.defaultPrevented || pane.kind !== "group" || !event.key.startsWith("Arrow")) return;
  clearTimeout(following);
  following = setTimeout(openActive, FOLLOW_MS);
});
shelf.addEventListener("keydown", onShelfKey);

find(".search").addEventListener("input", (event) => change({ search: event.target.value }));
for (const input of element.querySelectorAll("[data-filter]")) input.addEventListener("change", () => change({ [input.dataset.filter]: input.value }));
for (const box of element.querySelectorAll("[data-option]")) box.addEventListener("change", () => change({ [box.dataset.option]: box.checked }));
find(".order").addEventListener("change", (event) => {
  sort = event.target.value;
  change({});
});
find(".amount button").addEventListener("click", clearFilters);

for (const box of element.querySelectorAll("[data-stand-in]")) {
  const name = box.dataset.standIn;
  box.addEventListener("change", () => {
    if (name !== "table") return setStandIns({ [name]: box.checked });
    if (!box.checked) return setStandIns({ table: "" });
    if (find(".table-path").value.trim()) return setStandIns({ table: find(".table-path").value.trim() });
    find(".table-path").focus(); // which table: typed, or chosen beside it
  });
}
find(".table-path").addEventListener("change", (event) => setStandIns({ table: event.target.value.trim() }));
find(".table-button").addEventListener("click", () => find(".table-file").click());
find(".table-file").addEventListener("change", async (event) => {
  const [file] = event.target.files;
  event.target.value = "";
  if (!file) return;
  try {
    await setStandIns({ table: "", upload: (await upload(file)).path });
  } catch (error) {
    say(String(error.message || error));
  }
});

find(".file-input").addEventListener("change", (event) => {
  takeFiles([...event.target.files]);
  event.target.value = "";
});
for (const name of ["dragenter", "dragover"]) document.addEventListener(name, onDrag);
document.addEventListener("dragleave", onDragEnd);
document.addEventListener("drop", onDrop);

document.addEventListener("click", (event) => {
  for (const fold of element.querySelectorAll("details[open]")) if (!fold.contains(event.target)) fold.open = false;
});
const sizes = new ResizeObserver(() => {
  if (!isSeen()) return;
  if (factsVersion !== version) loadFacts();
  paintList();
  load();
});
for (const watched of [shelf, list]) sizes.observe(watched);
watch(["session", "revision"], start);
watch("skipped", () => {
  paintChips();
});
start();
