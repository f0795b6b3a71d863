// What a page remembers by itself, for the scripts of parts that keep an outbox. Storage may be full or forbidden; then a page
// remembers nothing, but works.

function remembered(name) {
  try {
    return localStorage.getItem(name);
  } catch {
    return null;
  }
}

function remember(name, value) {
  try {
    localStorage.setItem(name, value);
  } catch {}
}
