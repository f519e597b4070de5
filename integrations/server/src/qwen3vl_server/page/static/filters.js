// Kinds, source, and the switches for hybrid search and reranking.

import { request } from "./api.js";
import { byId, element } from "./dom.js";

export function showFilters(state, server) {
  for (const box of document.querySelectorAll("[name=kind]")) box.checked = state.kinds.includes(box.value);
  byId("source").value = state.source;
  showSwitch("hybrid", isHybrid(state, server), server.modes.includes("hybrid"), "This store has no index of words.");
  showSwitch("rerank", isReranked(state, server), server.reranker !== null, "This server has no reranker.");
}

export const isHybrid = (state, server) => server.modes.includes("hybrid") && (state.hybrid ?? true);
export const isReranked = (state, server) => server.reranker !== null && (state.rerank ?? true);

function showSwitch(name, checked, available, reason) {
  const box = byId(name);
  box.checked = checked;
  box.disabled = !available;
  byId(`${name}-label`).title = available ? SWITCHES[name] : reason;
}

const SWITCHES = {
  hybrid: "Rank by words as well as by vectors.",
  rerank: "Let the reranker read the best hits and sort them.",
};

export function listenToFilters(onChange) {
  for (const box of document.querySelectorAll("[name=kind]")) {
    box.addEventListener("change", () => {
      onChange({ kinds: [...document.querySelectorAll("[name=kind]:checked")].map((checked) => checked.value) });
    });
  }
  byId("hybrid").addEventListener("change", () => onChange({ hybrid: byId("hybrid").checked }));
  byId("rerank").addEventListener("change", () => onChange({ rerank: byId("rerank").checked }));
  byId("source").addEventListener("change", () => onChange({ source: byId("source").value }));
  byId("source").addEventListener("focus", suggestSources);
  byId("source").addEventListener("input", (event) => {
    suggestSources();
    const { value } = byId("source");
    // A suggestion that was chosen, or the cross of the field; what is typed counts at the end.
    if (!value || !event.inputType || event.inputType === "insertReplacementText") onChange({ source: value });
  });
}

let pending = 0;

function suggestSources() {
  clearTimeout(pending);
  pending = setTimeout(async () => {
    const query = new URLSearchParams({ contains: byId("source").value, limit: "50" });
    try {
      const { sources } = await request(`v1/documents?${query}`);
      byId("sources").replaceChildren(...sources.map(({ source }) => element("option", { value: source })));
    } catch {
      byId("sources").replaceChildren(); // a name can be typed nevertheless
    }
  }, 200);
}
