// The page: what the address bar says is searched, shown, and changed by the user.

import { addDocuments, listenToAdding } from "./add.js";
import { request } from "./api.js";
import { addIcons, byId, icon, showError } from "./dom.js";
import { isHybrid, isReranked, listenToFilters, showFilters } from "./filters.js";
import { keepPicture, listenForPictures, pictureOf, showChip } from "./query.js";
import { focusCard, moveFocus, renderHits } from "./results.js";
import { MAX_SHOWN, PAGE_SIZE, readState, writeState } from "./state.js";
import { hideHit, listenToViewer, showHit } from "./viewer.js";

const MAX_AGE_MS = 50 * 60 * 1000; // the URLs of media in an answer may be valid for an hour only

let server = null;
let state = readState(location.search);
let answer = { hits: [], mode: "dense", reranked: false };
let searched = ""; // what `answer` is the answer to
let searchedAt = 0; // when it came
let running = null;
let shownHit = null; // in the viewer
let focusHits = false; // when they arrive, because what had the focus has led to them

const picture = () => pictureOf(history.state?.picture);
const hasQuery = () => Boolean(state.words.trim() || state.like || picture());
const searchKey = () => JSON.stringify([{ ...state, hit: "" }, history.state?.picture ?? 0]);

// Goes to another state, with an entry in the history unless the state is the same.
function go(change, { picked = history.state?.picture ?? 0, opened = false } = {}) {
  const [former, formerUrl] = [searchKey(), writeState(state)];
  state = { ...state, ...change };
  const url = writeState(state);
  const isSame = url === formerUrl && picked === (history.state?.picture ?? 0);
  history[isSame ? "replaceState" : "pushState"]({ picture: picked, opened }, "", url);
  show(former !== searchKey());
}

// A new query begins with its first hits.
const search = (change, picked) => go({ shown: PAGE_SIZE, hit: "", ...change }, { picked });

async function show(isNew = true) {
  document.title = state.words ? `${state.words} · Search` : "Search";
  byId("words").value = state.words;
  showFilters(state, server);
  if (isNew) showChip(picture(), state.like);
  if (!state.hit) leaveHit();
  if (searchKey() !== searched || Date.now() - searchedAt > MAX_AGE_MS) await runSearch();
  if (state.hit) await showOpenHit();
}

async function runSearch() {
  running?.abort();
  running = new AbortController();
  const { signal } = running;
  showError(null);
  byId("welcome").hidden = hasQuery();
  const key = searchKey();
  document.body.classList.toggle("busy", hasQuery());
  if (!hasQuery()) {
    answer = { hits: [], mode: "dense", reranked: false };
    return showAnswer(key, "");
  }
  try {
    answer = await request("v1/search", { method: "POST", signal, ...searchBody() });
    showAnswer(key, summary());
  } catch (error) {
    if (error.name === "AbortError") return;
    answer = { hits: [], mode: "dense", reranked: false };
    showAnswer("", "");
    showError(error.message);
  } finally {
    if (!signal.aborted) document.body.classList.remove("busy");
  }
}

function searchBody() {
  const words = state.words.trim();
  const filter = {};
  if (state.kinds.length > 0) filter.kind = state.kinds;
  if (state.source) filter.source = state.source;
  const fields = { limit: state.shown, rerank: isReranked(state, server) };
  fields.mode = words && isHybrid(state, server) ? "hybrid" : "dense";
  if (state.like) fields.like = state.like;
  else if (words) fields.text = words;
  const file = state.like ? null : picture();
  if (!file) {
    return { body: JSON.stringify({ ...fields, filter }), headers: { "Content-Type": "application/json" } };
  }
  const body = new FormData();
  for (const [name, value] of Object.entries(fields)) body.append(name, String(value));
  body.append("filter", JSON.stringify(filter));
  body.append("image", file);
  return { body };
}

function showAnswer(key, text) {
  searched = key;
  searchedAt = Date.now();
  byId("status").textContent = text;
  renderHits(answer, { onOpen: openHit, onLike: searchLike });
  byId("more").hidden = answer.hits.length < state.shown || state.shown >= MAX_SHOWN;
  if (focusHits) focusCard(byId("results").querySelector(".open"));
  focusHits = false;
}

function summary() {
  const count = answer.hits.length;
  if (count === 0) return "Nothing found.";
  const ranking = answer.mode === "hybrid" ? "by vectors and words" : "by vectors";
  const hits = count === 1 ? "1 hit" : `${count} hits`;
  return `${hits} ${ranking}${answer.reranked ? ", reranked" : ""} in ${answer.seconds.toFixed(2)} s`;
}

function searchLike(id) {
  focusHits = true;
  search({ like: id, words: "", source: "" }, 0);
}

// The viewer.

const openHit = (id) => go({ hit: id }, { opened: true });

async function showOpenHit() {
  const index = answer.hits.findIndex((hit) => hit.id === state.hit);
  try {
    shownHit = answer.hits[index] ?? (await request(`v1/documents/${encodeURIComponent(state.hit)}`));
    showHit(shownHit, answer, index < 0 ? null : { index, count: answer.hits.length });
  } catch (error) {
    showError(error.message);
  }
}

// Closes the viewer; the focus returns to the card of what it has shown.
function leaveHit() {
  hideHit();
  const cards = [...byId("results").querySelectorAll(".open")];
  if (shownHit) focusCard(cards.find((card) => card.dataset.id === shownHit.id));
  shownHit = null;
}

function closeHit() {
  if (history.state?.opened) {
    history.back(); // to the list from which it was opened
    return;
  }
  state = { ...state, hit: "" };
  history.replaceState({ ...history.state }, "", writeState(state));
  show(false);
}

function stepHit(step) {
  const index = answer.hits.findIndex((hit) => hit.id === state.hit);
  const next = answer.hits[index + step];
  if (index < 0 || !next) return;
  state = { ...state, hit: next.id };
  history.replaceState(history.state, "", writeState(state));
  show(false);
}

// Events.

function listen() {
  byId("search").addEventListener("submit", (event) => {
    event.preventDefault();
    const words = byId("words").value;
    searched = ""; // also if nothing has changed
    search({ words, like: words.trim() ? "" : state.like });
  });
  byId("chip-remove").addEventListener("click", () => {
    search({ like: "", words: byId("words").value }, 0);
    byId("words").focus();
  });
  byId("more").addEventListener("click", async () => {
    const count = answer.hits.length;
    state = { ...state, shown: state.shown + PAGE_SIZE };
    history.replaceState(history.state, "", writeState(state));
    await show(false);
    focusCard(byId("results").querySelectorAll(".open")[count]);
  });
  byId("open-help").addEventListener("click", () => byId("help").showModal());
  listenToFilters((change) => search({ words: state.like ? "" : byId("words").value, ...change }));
  listenForPictures((file) => search({ like: "", words: byId("words").value }, keepPicture(file)), addDocuments);
  listenToAdding(server, async () => {
    await describeLibrary();
    searched = ""; // what was added may be among the hits
    show(false);
  });
  listenToViewer({
    onClose: closeHit,
    onStep: stepHit,
    onLike: () => searchLike(state.hit),
    onOnlySource: () => search({ source: shownHit.source }),
  });
  window.addEventListener("popstate", () => {
    state = readState(location.search);
    show();
  });
  document.addEventListener("keydown", onKey);
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  const { target, key } = event;
  const isTyping = target.matches("input:not([type=checkbox])");
  if (key === "/" && !isTyping) {
    event.preventDefault();
    byId("words").focus();
    byId("words").select();
  } else if (key === "Escape" && !isTyping) {
    byId("words").focus();
  } else if (key === "Escape" && target === byId("words")) {
    byId("words").value = state.words;
  } else if (key === "ArrowDown" && target === byId("words")) {
    event.preventDefault();
    focusCard(byId("results").querySelector(".open"));
  } else if (key.startsWith("Arrow") && target.matches(".open, .like")) {
    event.preventDefault();
    moveFocus(target.closest(".card").querySelector(".open"), key);
  }
}

// Asks the server what it has; returns whether it answers.
async function describeLibrary() {
  try {
    server = await request("v1/search");
  } catch (error) {
    showError(error.message);
    return false;
  }
  const documents = server.points === 1 ? "1 document" : `${server.points.toLocaleString("en")} documents`;
  byId("library").textContent = documents;
  byId("library").title = [server.embedder, server.reranker].filter(Boolean).join(" and ");
  return true;
}

async function start() {
  addIcons();
  byId("open-help").append(icon("help"));
  if (!(await describeLibrary())) return;
  history.replaceState({ picture: 0, opened: false }, "");
  listen();
  await show();
  if (!hasQuery()) byId("words").focus();
}

start();
