// The status page: who is signed in, how the node is, and when to ask again. Studies and jobs: studies.js.
import { ask, element, showJobs, showStudies, tick, Unknown } from "./studies.js";

const $ = (id) => document.getElementById(id);
const POLL_MS = 10000;
let watching = null;
let waiting = null;

function tell(words, wrong = false) {
  $("message").textContent = words;
  $("message").classList.toggle("wrong", wrong);
}

async function health() {
  const answer = await fetch("/health/ready");
  const said = await answer.json();
  const failing = said.parts.filter((one) => !one.ok);
  $("health").className = said.ready && !failing.length ? "well" : "ill";
  $("health-words").textContent = !failing.length
    ? "receives, reads and delivers"
    : failing.map((one) => `${one.part}: ${one.words}`).join("; ");
  $("health-parts").replaceChildren(
    ...said.parts.flatMap((one) => [element("dt", {}, one.part), element("dd", {}, one.words)]),
  );
}

async function refresh() {
  try {
    await Promise.all([health(), showStudies(chosen()), showJobs()]);
    if ($("message").classList.contains("wrong")) tell("");
    $("main").dataset.shown = "yes";
  } catch (error) {
    if (error instanceof Unknown) return signIn();
    tell(`The node can't be asked now (${error.message}); it is asked again.`, true);
    $("health").className = "ill";
    $("health-words").textContent = "no answer";
  }
}

function soon() {
  if (waiting === null) {
    waiting = setTimeout(() => {
      waiting = null;
      refresh();
    }, 300);
  }
}

function chosen() {
  return decodeURIComponent(location.hash.slice(1));
}

function watch() {
  watching?.close();
  watching = new EventSource("/api/events");
  watching.addEventListener("changed", soon);
}

function signIn() {
  watching?.close();
  $("main").hidden = true;
  $("sign-out").hidden = true;
  $("sign-in").hidden = false;
  $("token").focus();
}

async function begin() {
  const session = await (await fetch("/session")).json();
  if (!session.known) return signIn();
  const about = await ask("/api/node");
  $("node").textContent = `${about.node} · ${about.ae_title}`;
  document.title = `MedMLLM ${about.node}`;
  $("sign-in").hidden = true;
  $("main").hidden = false;
  $("sign-out").hidden = !session.token;
  document.body.about = about;
  await refresh();
  watch();
}

$("sign-in").addEventListener("submit", async (event) => {
  event.preventDefault();
  const given = $("token").value;
  $("token").value = "";
  const answer = await fetch("/session", { method: "POST", headers: { Authorization: `Bearer ${given}` } });
  if (answer.ok) return begin();
  $("sign-in").querySelector("p").textContent = (await answer.json()).error;
});
$("sign-out").addEventListener("click", async () => {
  await fetch("/session", { method: "DELETE" });
  signIn();
});
$("more").addEventListener("click", () => showStudies(chosen(), true));
addEventListener("hashchange", refresh);
document.addEventListener("medmllm-done", (event) => {
  tell(event.detail.words, event.detail.wrong);
  if (!event.detail.wrong) refresh();
});
document.addEventListener("visibilitychange", () => document.hidden || refresh());
$("study").addEventListener("close", () => {
  const key = $("study-title")?.textContent;
  $("study").replaceChildren();
  // The row that it was opened from may have been drawn again meanwhile.
  if (key && document.activeElement === document.body) {
    document.querySelector(`#studies [aria-label="Study ${CSS.escape(key)}"]`)?.focus();
  }
});
setInterval(() => document.hidden || $("main").hidden || refresh(), POLL_MS);
setInterval(tick, 1000);
begin().catch((error) => {
  $("main").hidden = false;
  tell(`The node can't be asked (${error.message}); load the page again.`, true);
});
