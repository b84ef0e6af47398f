// Studies and readings on request: the list, one of them with its report, and what can be done. All that
// comes from the node is put in as text, never as markup.

const LABELS = {
  arriving: "arriving", kept: "kept", complete: "to be read", reading: "being read", reported: "reported",
  delivering: "being delivered", delivered: "delivered", parked: "needs a person",
};
let shownPages = 1;
let shownFor = null;

export class Unknown extends Error {}

export async function ask(path, { method = "GET", body } = {}) {
  const headers = body === undefined ? {} : { "Content-Type": "application/json" };
  const answer = await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
  if (answer.status === 401) throw new Unknown("sign in");
  const said = await answer.json();
  if (!answer.ok) throw new Error(said.error ?? `status ${answer.status}`);
  return said;
}

export function element(name, attributes = {}, ...inside) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "onclick") made.addEventListener("click", value);
    else if (value !== undefined && value !== false) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...inside.filter((one) => one !== null && one !== undefined));
  return made;
}

export function ago(since) {
  const seconds = Math.max(0, Math.round(Date.now() / 1000 - since));
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
  return `${Math.floor(seconds / 86400)} d ${Math.floor((seconds % 86400) / 3600)} h`;
}

export function tick() {
  for (const one of document.querySelectorAll("[data-since]")) one.textContent = ago(Number(one.dataset.since));
}

const since = (time) => element("span", { "data-since": time, title: new Date(time * 1000).toLocaleString() }, ago(time));
const badge = (state, words = state) => element("span", { class: `state ${state}` }, words);
const megabytes = (bytes) => `${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)} MB`;
const clock = (time) => new Date(time * 1000).toLocaleString(undefined, { dateStyle: "short", timeStyle: "medium" });

function done(words, wrong = false) {
  document.dispatchEvent(new CustomEvent("medmllm-done", { detail: { words, wrong } }));
}

async function act(button, key, what, body) {
  button.disabled = true;
  try {
    const said = await ask(`/api/studies/${encodeURIComponent(key)}/${what}`, { method: "POST", body });
    done(`${key}: ${said.done}`);
    if (document.getElementById("study").open) await showStudy(key);
  } catch (error) {
    done(`${key}: ${error.message}`, true);
  }
  button.disabled = false;
}

function buttons(one) {
  const made = [];
  const add = (words, what, body, quiet = true) => made.push(element("button",
    { type: "button", class: quiet && "quiet", "aria-label": `${words}: study ${one.key}`,
      onclick: (event) => act(event.currentTarget, one.key, what, body) }, words));
  if (one.state === "parked") add("Try again", "retry", undefined, false);
  if (one.state === "delivering") add("Send now", "retry");
  if (one.state === "kept") add("Read it", "read", {});
  if (one.state === "complete") {
    add(one.priority === "stat" ? "No hurry" : "Read first", "priority", { priority: one.priority === "stat" ? "routine" : "stat" });
  }
  if (one.state === "complete" || one.state === "parked") add("Hold", "hold");
  return made;
}

export async function showStudies(state, more = false) {
  if (state !== shownFor) [shownPages, shownFor] = [1, state];
  if (more) shownPages += 1;
  const rows = [];
  let next = null;
  let counts = {};
  for (let page = 0; page < shownPages; page += 1) {
    const query = new URLSearchParams({ limit: 50 });
    if (state) query.set("state", state);
    if (next) query.set("after", next);
    const said = await ask(`/api/studies?${query}`);
    rows.push(...said.studies);
    ({ next, counts } = said);
    if (!next) break;
  }
  showCounts(counts, state);
  const focused = document.activeElement?.getAttribute("aria-label");
  document.querySelector("#studies tbody").replaceChildren(...rows.map(row));
  if (focused) document.querySelector(`[aria-label="${CSS.escape(focused)}"]`)?.focus();
  document.getElementById("studies").hidden = !rows.length;
  const none = document.getElementById("none");
  none.hidden = rows.length > 0;
  none.textContent = state ? `No study is ${LABELS[state] ?? state}.` : "No study has come yet.";
  document.getElementById("more").hidden = !next;
}

function showCounts(counts, chosen) {
  const all = Object.values(counts).reduce((sum, one) => sum + one, 0);
  const link = (state, words, count) => element("a",
    { href: `#${state}`, "aria-current": state === chosen && "true" }, words, element("b", { class: count ? state : "soft" }, String(count)));
  document.getElementById("states").replaceChildren(
    link("", "all", all), ...Object.entries(counts).map(([state, count]) => link(state, LABELS[state], count)));
}

function row(one) {
  const images = Object.entries(one.modalities).map(([name, count]) => `${count} ${name || "?"}`).join(", ");
  const sent = Object.entries(one.sent).map(([name, state]) => element("span", {}, `${name} `, badge(state), " "));
  const open = element("button", { type: "button", class: "link", "aria-label": `Study ${one.key}`, onclick: () => showStudy(one.key) }, one.key);
  return element("tr", {},
    element("td", {}, open),
    element("td", { "data-name": "Images" }, images || "none"),
    element("td", {}, element("span", { class: one.state === "reading" && "reading" }, element("span", { class: "pulse" }, badge(one.state, LABELS[one.state]))),
      one.priority === "stat" && one.state === "complete" ? element("span", { class: "stat" }, " first") : null),
    element("td", { "data-name": "Why" }, one.reason, one.trouble ? element("div", { class: "waiting" }, one.trouble) : null),
    element("td", { "data-name": "For" }, since(one.since)),
    element("td", { "data-name": "Reports at" }, ...sent),
    element("td", { class: "do" }, ...buttons(one).flatMap((each) => [each, " "])));
}

export async function showStudy(key) {
  const dialog = document.getElementById("study");
  let one;
  try {
    one = await ask(`/api/studies/${encodeURIComponent(key)}`);
  } catch (error) {
    return done(`${key}: ${error.message}`, true);
  }
  const close = element("button", { type: "button", class: "quiet close", onclick: () => dialog.close() }, "Close");
  dialog.replaceChildren(
    element("div", { class: "title" }, element("h2", { id: "study-title" }, key), badge(one.state, LABELS[one.state]), close),
    element("p", {}, one.reason, " ", element("span", { class: "soft" }, "since "), since(one.since)),
    actions(one), ...report(one), facts(one), ...deliveries(one), ...history(one));
  if (!dialog.open) dialog.showModal();
  close.focus();
}

function actions(one) {
  const made = element("div", { class: "actions" }, ...buttons(one));
  if (["kept", "parked", "delivered"].includes(one.state) && one.instances) {
    const about = document.body.about;
    const select = (words, names, chosen) => element("select", { "aria-label": words },
      ...names.map((name) => element("option", { value: name, selected: name === chosen }, name)));
    const task = select("Task", about.tasks.map((each) => each.name), one.plan.task ?? "report");
    const model = select("Model", about.models, one.plan.model ?? about.model);
    const again = element("button", { type: "button", class: "quiet",
      onclick: (event) => act(event.currentTarget, one.key, "read", { task: task.value, model: model.value }) },
      one.version ? "Read again" : "Read it so");
    made.append(element("span", { class: "again" }, task, model, again));
  }
  return made;
}

function report(one) {
  if (!one.reports.length) return [];
  const base = `/api/studies/${encodeURIComponent(one.key)}`;
  const newest = one.reports[0];
  const links = [["Report in a tab of its own", `${base}/report.html`], ["JSON", `${base}/report`],
    ...newest.objects.map((each) => [each.file, `${base}/objects/${each.file}`])];
  return [
    element("h2", {}, `Report, version ${newest.version}`),
    element("p", {}, ...links.flatMap(([words, href]) => [element("a", { href, target: "_blank", rel: "noopener" }, words), " · "]).slice(0, -1)),
    element("iframe", { src: `${base}/report.html`, sandbox: "", title: `Report on the study ${one.key}`, loading: "lazy" })];
}

function facts(one) {
  const plan = Object.entries(one.plan).filter(([, value]) => value !== null && value !== false && value !== "");
  const pairs = [["Study Instance UID", one.study_uid], ["Images", `${one.instances}, ${megabytes(one.bytes)}`],
    ["First image", clock(one.first_received)], ["Last image", clock(one.last_received)], ["Attempts", String(one.attempts)],
    ["Node", one.owner || "any"], ...plan.map(([name, value]) => [`Plan: ${name}`, Array.isArray(value) ? value.join(", ") : String(value)])];
  return element("dl", {}, ...pairs.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]));
}

function deliveries(one) {
  if (!one.deliveries.length) return [];
  return [element("h2", {}, "Deliveries"), element("ol", {}, ...one.deliveries.map((each) => element("li", {},
    element("span", {}, `${each.destination}, ${each.version ? `version ${each.version}` : "as it came"}`),
    element("span", {}, badge(each.state), ` ${each.note}`,
      each.attempts > 1 ? element("span", { class: "soft" }, ` (${each.attempts} tries)`) : null))))];
}

function history(one) {
  const said = (event) => Object.entries(event).filter(([name]) => !["time", "event"].includes(name))
    .map(([name, value]) => `${name}: ${typeof value === "object" ? JSON.stringify(value) : value}`).join(", ");
  return [element("h2", {}, "What happened"), element("ol", {}, ...one.events.toReversed().map((event) => element("li", {},
    element("span", { class: "soft" }, clock(event.time)),
    element("span", {}, event.event === "moved" ? `${event.from} to ${event.to}: ${event.reason}` : `${event.event} (${said(event)})`))))];
}

export async function showJobs() {
  const { jobs } = await ask("/api/jobs");
  document.getElementById("jobs-section").hidden = !jobs.length;
  document.getElementById("jobs").replaceChildren(...jobs.slice(0, 20).map(job));
}

function job(one) {
  const ended = ["done", "failed", "cancelled"].includes(one.state);
  const path = `/api/jobs/${encodeURIComponent(one.id)}`;
  const drop = async (event) => {
    event.currentTarget.disabled = true;
    try {
      await ask(path, { method: "DELETE" });
      done(ended ? "The reading is deleted." : "The reading is being stopped.");
    } catch (error) {
      done(error.message, true);
    }
  };
  return element("li", {},
    badge(one.state), element("span", {}, one.task ?? "reading"),
    one.model || one.second ? element("span", { class: "soft" }, [one.model ?? document.body.about.model, one.second].filter(Boolean).join(" and ")) : null,
    since(one.created),
    ended ? null : element("span", { class: "soft" }, one.stage),
    ended || !one.total ? null : element("progress", { max: one.total, value: one.done, "aria-label": one.stage }),
    one.error ? element("span", { class: "failed" }, one.error) : null,
    one.state === "done" ? element("a", { href: `${path}/report.html`, target: "_blank", rel: "noopener" }, "Report") : null,
    element("button", { type: "button", class: "quiet link", "aria-label": `${ended ? "Delete" : "Stop"} reading ${one.id}`, onclick: drop }, ended ? "Delete" : "Stop"));
}
