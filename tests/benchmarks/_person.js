// What a benchmark's person needs in the page, put there before anything else of it runs: a note of every operation that is laid
// into the outbox, and a stopwatch from a key press to the next screen painted. See _person.py.

(() => {
  const OUTBOX = "image-dpo-outbox ", NOTE = "benchmark-note ";
  const { setItem, removeItem } = Storage.prototype;
  const laidDown = new Map(), waits = [];
  Storage.prototype.setItem = function (name, value) {
    // Where it outlives the page: Gradio loads it anew when it likes.
    if (this === localStorage && String(name).startsWith(OUTBOX)) {
      setItem.call(this, NOTE + name, value);
      laidDown.set(name, performance.now());
    }
    return setItem.call(this, name, value);
  };
  Storage.prototype.removeItem = function (name) {
    if (laidDown.has(name)) waits.push(performance.now() - laidDown.get(name));
    laidDown.delete(name);
    return removeItem.call(this, name);
  };
  const named = (start) => Object.keys(localStorage).filter((name) => name.startsWith(start));
  const take = (name) => {
    const note = localStorage.getItem(name);
    localStorage.removeItem(name);
    return JSON.parse(note);
  };
  const isThere = (image) => image && image.complete && image.naturalWidth > 0 && image.getBoundingClientRect().width >= 40 &&
    image.checkVisibility({ opacityProperty: true, visibilityProperty: true, contentVisibilityAuto: true });
  const screen = () => {
    const cells = [...document.querySelectorAll("#picker .cell")].filter((cell) => cell.offsetParent !== null);
    const images = cells.map((cell) => cell.querySelector("img"));
    const isWhole = (cell, index) => isThere(images[index]) && !cell.querySelector(".waiting, .broken");
    const isPainted = cells.length > 1 && cells.every(isWhole);
    return isPainted && { images, shown: images.map((image) => image.src) };
  };
  // Resolves with the screen once it is painted and is not `former`.
  const painted = async (former, patience) => {
    for (const end = performance.now() + patience; performance.now() < end; ) {
      const now = screen();
      if (now && now.shown.join() !== former) {
        await Promise.all(now.images.map((image) => image.decode()));
        await new Promise((resolve) => requestAnimationFrame(() => {
          const after = new MessageChannel(); // its message is handled once the frame is done
          after.port1.onmessage = resolve;
          after.port2.postMessage(0);
        }));
        const still = screen();
        if (still && still.shown.join() === now.shown.join()) return now.shown;
      } else await new Promise(requestAnimationFrame);
    }
    return null;
  };
  let timed = null;
  window.person = {
    look: async (patience) => ({ shown: await painted("", patience), born: performance.timeOrigin, mode: document.querySelector("#picker .picker").dataset.mode }),
    // The next key press is timed, until a screen other than the one before it is painted. False if none is there now.
    arm: (patience) => {
      const before = screen();
      if (!before) return false;
      const former = before.shown.join();
      timed = new Promise((resolve) => addEventListener("keydown", async (event) => {
        const shown = await painted(former, patience);
        resolve(shown && performance.now() - event.timeStamp);
      }, { once: true })); // on window: after the picker's own listener, on document
      return true;
    },
    timed: () => timed,
    made: () => named(NOTE).map(take),
    waiting: () => named(OUTBOX).length,
    waits: () => waits.splice(0), // of what was acknowledged since: ms from laying it down until the page could forget it
  };
})();
