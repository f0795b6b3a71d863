// The shelf's page side, third part: files by button or by drag, sent a few at a time, then handed over together.

const AT_ONCE = 3; // files on their way at the same time
const MOST_REFUSED = 200; // named in the list of files not taken

let sending = null; // {done, total} while files are on their way

async function takeFiles(files) {
  if (sending || !files.length) return;
  sending = { done: 0, total: files.length };
  paintSending();
  const sent = [], refused = [], waiting = [...files];
  const work = async () => {
    for (let file = waiting.shift(); file; file = waiting.shift()) {
      try {
        sent.push((await upload(file)).path);
      } catch (error) {
        refused.push([file.name, String((error && error.message) || error || "The app did not take it.")]);
      }
      sending.done++;
      paintSending();
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, work));
  sending = null;
  paintSending();
  trigger("take_in", { files: sent, refused: refused.slice(0, MOST_REFUSED) });
}

function paintSending() {
  const node = find(".sending");
  node.hidden = !sending;
  if (!sending) return;
  setText(node.querySelector("p"), `Uploading ${sending.done.toLocaleString()} of ${amount(sending.total, "file")}.`);
  node.querySelector("b").style.width = `${(100 * sending.done) / sending.total}%`;
}

// Dropped folders are walked: a browser gives their files only on asking, a hundred at a time.
async function droppedFiles(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry && item.webkitGetAsEntry()).filter(Boolean);
  if (!entries.length) return [...transfer.files];
  const found = [];
  for (let entry = entries.shift(); entry; entry = entries.shift()) {
    if (entry.isFile) found.push(await new Promise((resolve, reject) => entry.file(resolve, reject)));
    else {
      const reader = entry.createReader();
      const next = () => new Promise((resolve, reject) => reader.readEntries(resolve, reject));
      for (let batch = await next(); batch.length; batch = await next()) entries.push(...batch);
    }
  }
  return found.filter((file) => !file.name.startsWith("."));
}

// The whole page takes a drop while the shelf is on it: nobody should have to aim.
const drop = find(".drop");
const carriesFiles = (event) => shelf.offsetParent !== null && event.dataTransfer && [...event.dataTransfer.types].includes("Files");

function onDrag(event) {
  if (!element.isConnected || !carriesFiles(event)) return;
  event.preventDefault();
  drop.hidden = false;
}

function onDragEnd(event) {
  if (event.type === "drop" || !event.relatedTarget) drop.hidden = true;
}

async function onDrop(event) {
  onDragEnd(event);
  if (!element.isConnected || !carriesFiles(event)) return;
  event.preventDefault();
  try {
    await takeFiles(await droppedFiles(event.dataTransfer));
  } catch {
    say("What was dropped could not be read. Try the button, or a zip.");
  }
}
