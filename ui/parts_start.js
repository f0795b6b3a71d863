// The last of a part's scripts: paints it, now and whenever its data changes. The painters: parts.js, train_parts.js.

const kind = part.dataset.part;
const source = {
  text: ["text", "tone"], job: ["job"], report: ["report"], runs: ["rows"], results: ["results"],
  list: ["lines"], strip: ["strip"],
}[kind];
watch(source, painters[kind]);
painters[kind]();

if (kind === "job") find("button").addEventListener("click", () => trigger("go"));

if (kind === "results") {
  const flipKey = (on) => (event) => {
    const typing = event.target.closest && event.target.closest("input,textarea,select,[contenteditable]");
    if (event.key.toLowerCase() !== "f" || event.ctrlKey || event.metaKey || event.altKey || typing) return;
    if (!element.isConnected || element.offsetParent === null) return;
    const row = on ? find(".result:hover") || find(".result:focus-within") || find(".result") : find(".result.flipped");
    if (row) row.classList.toggle("flipped", on);
  };
  document.addEventListener("keydown", flipKey(true));
  document.addEventListener("keyup", flipKey(false));
}
