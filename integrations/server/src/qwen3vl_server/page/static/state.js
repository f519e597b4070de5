// What is searched for, as the address bar has it: a link to a search is a link to this page.

export const PAGE_SIZE = 24;
export const MAX_SHOWN = 960; // pages within what the server returns at most
export const KINDS = ["picture", "page", "clip", "text"];

// The fields that are not in a URL have these values. `hybrid` and `rerank` are null where the user has not chosen.
const EMPTY = { words: "", like: "", kinds: [], source: "", hybrid: null, rerank: null, shown: PAGE_SIZE, hit: "" };

export function readState(search) {
  const query = new URLSearchParams(search);
  const shown = Number.parseInt(query.get("n") ?? "", 10);
  return {
    ...EMPTY,
    words: query.get("q") ?? "",
    like: query.get("like") ?? "",
    kinds: KINDS.filter((kind) => query.getAll("kind").includes(kind)),
    source: query.get("source") ?? "",
    hybrid: readSwitch(query.get("hybrid")),
    rerank: readSwitch(query.get("rerank")),
    shown: shown > 0 ? Math.min(shown, MAX_SHOWN) : PAGE_SIZE,
    hit: query.get("hit") ?? "",
  };
}

export function writeState(state) {
  const query = new URLSearchParams();
  if (state.words) query.set("q", state.words);
  if (state.like) query.set("like", state.like);
  for (const kind of state.kinds) query.append("kind", kind);
  if (state.source) query.set("source", state.source);
  for (const name of ["hybrid", "rerank"]) if (state[name] !== null) query.set(name, state[name] ? "1" : "0");
  if (state.shown !== PAGE_SIZE) query.set("n", String(state.shown));
  if (state.hit) query.set("hit", state.hit);
  const text = query.toString();
  return text ? `?${text}` : "./";
}

function readSwitch(value) {
  return value === null ? null : value === "1";
}
