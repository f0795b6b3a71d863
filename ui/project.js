// The page side of project_part.py. What takes long is started here and asked about until it is over. Names and messages are set
// as text content only.

const STANDING = "project_standing";
const find = (selector) => element.querySelector(selector);
const box = find(".project");

const isSeen = () => box.open;

function paint({ task, where }) {
  setText(find(".where"), `As packed here or by python -m dpo project pack. ${where}`);
  paintTask(task);
  return Boolean(task && !task.is_over);
}

async function copyDiagnostics() {
  const answer = await question("tell_diagnostics");
  if (!answer) return (unasked = copyDiagnostics);
  setText(find(".problem"), answer.error || "");
  if (answer.error) return;
  const text = find(".text");
  text.value = answer.text;
  text.hidden = false;
  let isCopied = false;
  try {
    await navigator.clipboard.writeText(answer.text);
    isCopied = true;
  } catch {
    text.select(); // a page that came without encryption may not write there; the keys for copying work
  }
  setText(find(".copied"), isCopied ? "Copied. Look through it before you paste it." : "Selected: copy it with Ctrl+C.");
}

box.addEventListener("toggle", look);
find(".pack").addEventListener("submit", (event) => {
  event.preventDefault();
  ask("begin_pack", { images: find(".images").value, checkpoints: find(".checkpoints").checked });
});
find(".choose").addEventListener("click", () => find(".file").click());
find(".file").addEventListener("change", async (event) => {
  const [file] = event.target.files;
  event.target.value = "";
  if (file) await sendFile(file, (path) => ask("begin_unpack", { upload: path }));
});
find(".stop-task").addEventListener("click", () => ask("stop_project_task"));
find(".copy").addEventListener("click", copyDiagnostics);
// The picker's keys are not meant here.
for (const name of ["keydown", "keyup"]) box.addEventListener(name, (event) => event.stopPropagation());
watch("session", goOn);
