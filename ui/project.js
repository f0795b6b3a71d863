// The page side of project_part.py. What takes long is started here and asked about until it is over. Names and messages are set
// as text content only.

const AGAIN_MS = 700; // between questions while something is on its way
const find = (selector) => element.querySelector(selector);
const box = find(".project");
let asking = 0, waiting = null; // what is to be asked once there is a session

async function call(name, payload) {
  const answer = await question(name, payload);
  if (!answer) waiting = [name, payload];
  if (!answer || !answer.error) return answer;
  paintTask({ is_over: true, error: answer.error });
  return null;
}

async function ask(name, payload) {
  clearTimeout(asking);
  const answer = await call(name, payload);
  if (!answer) return;
  setText(find(".where"), `As packed here or by python -m dpo project pack. ${answer.where}`);
  paintTask(answer.task);
  if (answer.task && !answer.task.is_over) asking = setTimeout(look, AGAIN_MS);
}

function look() {
  if (box.open) ask("project_standing", {});
}

async function copyDiagnostics() {
  const answer = await call("tell_diagnostics", {});
  if (!answer) return;
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
find(".stop-task").addEventListener("click", () => ask("stop_project_task", {}));
find(".copy").addEventListener("click", copyDiagnostics);
// The picker's keys are not meant here.
for (const name of ["keydown", "keyup"]) box.addEventListener(name, (event) => event.stopPropagation());
watch("session", () => {
  if (!props.session || !waiting) return;
  const [name, payload] = waiting;
  waiting = null;
  if (name === "tell_diagnostics") copyDiagnostics();
  else ask(name, payload);
});
