// How a part of the page asks the app, by the server functions that `serve` (session.py) makes.

// The answer; {error} where it says why not; null while a new token is on its way: "session" then changes, and the part asks anew.
async function question(name, payload) {
  const { token, view } = props.session || {};
  if (!token) {
    trigger("attach", {}); // built only now, and Gradio forgets what it was sent before
    return null;
  }
  let answer = null;
  try {
    answer = await server[name]({ token, view, ...payload });
  } catch {} // the app was closed, or the connection is gone
  if (!answer) return { error: "The app does not answer.", isSilent: true };
  if (answer.error !== "token") return answer;
  if (props.session.token === token) trigger("attach", {});
  return null;
}
