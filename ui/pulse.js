// The page's pulse: asks what is new, and starts a Gradio event only for that. See pulse.py.

const PAUSE_MS = 1900; // without a pick, before what picks have changed is shown
const LONGEST_MS = 30000; // it waits for a pause: others may be picking all the time
const DRAW_MS = 1900; // between two drawings of the curves, of which each is felt
const MOST_FAILURES = 3; // after that many the app may have forgotten this page

let known = null, shownPicks = null; // the last answer; up to which pick the page was brought up to date
let shownRuns = null, drawn = 0; // up to which state of jobs and runs the Train tab was drawn, and when
let changed = 0, waiting = 0; // when picks were last seen to change, and first since that
let isAsking = false, failures = 0;

async function beat() {
  if (!element.isConnected) return clearInterval(beating);
  if (isAsking) return;
  isAsking = true;
  let now = null;
  try {
    now = await server.beat({});
  } catch {} // no answer: the picker says so, as soon as that matters
  isAsking = false;
  if (!now || !now.process) return failures++;
  // As Gradio does it when one of its own requests has failed.
  if (failures >= MOST_FAILURES || (known && now.process !== known.process)) return location.reload();
  failures = 0;
  tell(now);
}

function tell(now) {
  const time = performance.now(), before = known || {};
  known = now;
  document.dispatchEvent(new CustomEvent("job-line", { detail: now.line }));
  if (now.job !== before.job) document.dispatchEvent(new Event("job-news")); // for parts that ask the app themselves
  const tab = document.querySelector("#tabs [role=tab][aria-selected=true]");
  if (now.job !== shownRuns && tab && tab.dataset.tabId === "train" && time - drawn >= DRAW_MS) {
    shownRuns = now.job;
    drawn = time;
    trigger("run_news");
  }
  if (now.picks !== before.picks) changed = time;
  if (now.picks === shownPicks) waiting = time;
  const isPaused = time - changed >= PAUSE_MS || time - waiting >= LONGEST_MS;
  if (now.rest !== before.rest || (now.picks !== shownPicks && isPaused)) {
    shownPicks = now.picks;
    waiting = time;
    trigger("news");
  }
}

const beating = setInterval(beat, props.seconds * 1000);
beat();
