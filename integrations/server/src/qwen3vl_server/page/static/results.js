// The hits as a grid.

import { byId, element, icon } from "./dom.js";
import { fileName } from "./query.js";

export const SCORES = {
  dense: ["vectors", "Cosine of the query's and the document's vectors: the more, the more similar."],
  text: ["words", "How well the words match (BM25)."],
  hybrid: ["fused", "Ranks by vectors and by words, fused: 1 is first in both."],
  rerank: ["reranker", "How well the reranker finds that the document matches the query, from 0 to 1. It decides the order."],
};

export const scoreText = (score) => (score > 0 && score < 0.001 ? "<0.001" : score.toFixed(3));

export function titleOf(hit) {
  return fileName(hit.source) || hit.metadata.heading || hit.text.slice(0, 60) || hit.kind;
}

export function partOf(hit) {
  if (hit.page !== null) return `page ${hit.page}`;
  if (hit.kind === "clip" && hit.seconds) return `${clock(hit.seconds[0])}–${clock(hit.seconds[1])}`;
  const lines = /^lines=(\d+),(\d+)$/.exec(hit.locator);
  return lines ? `lines ${lines[1]}–${lines[2]}` : "";
}

function clock(seconds) {
  const whole = Math.floor(seconds);
  const parts = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const shown = parts[0] > 0 ? parts : parts.slice(1);
  return shown.map((part, index) => (index === 0 ? String(part) : String(part).padStart(2, "0"))).join(":");
}

export function renderHits(answer, { onOpen, onLike }) {
  byId("results").replaceChildren(...answer.hits.map((hit) => card(hit, answer, onOpen, onLike)));
}

function card(hit, answer, onOpen, onLike) {
  const title = titleOf(hit);
  const part = partOf(hit);
  const open = element(
    "button",
    { type: "button", className: "open", title: hit.source, tabIndex: hit.rank === 1 ? 0 : -1 },
    preview(hit),
    hit.kind === "picture" ? null : element("span", { className: "badge" }, icon(hit.kind), part || hit.kind),
    element("bdi", { className: "name" }, title),
  );
  open.addEventListener("click", () => onOpen(hit.id));
  open.dataset.id = hit.id;
  const like = element("button", {
    type: "button",
    className: "like",
    title: "More like this",
    ariaLabel: `More like ${title}`,
    tabIndex: -1,
  });
  like.append(icon("similar"));
  like.addEventListener("click", () => onLike(hit.id));
  open.addEventListener("focus", () => moveTabStop(open, like));
  return element("li", { className: "card" }, open, like, scores(hit, answer));
}

// One card can be reached with Tab, and the arrows move between cards.
function moveTabStop(open, like) {
  for (const other of byId("results").querySelectorAll("button")) other.tabIndex = -1;
  open.tabIndex = like.tabIndex = 0;
}

function preview(hit) {
  const place = element("span", { className: "preview" });
  if (hit.kind === "text" || !hit.media.thumbnail) {
    place.append(hit.text ? element("span", { className: "snippet", dir: "auto" }, hit.text.slice(0, 400)) : icon(hit.kind));
    return place;
  }
  const image = element("img", { src: hit.media.thumbnail, alt: "", loading: "lazy", decoding: "async" });
  image.addEventListener("error", () => {
    place.replaceChildren(icon(hit.kind), element("span", { className: "missing" }, "not shown by this server"));
  });
  place.append(image);
  return place;
}

function scores(hit, answer) {
  const place = element("span", { className: "scores" });
  if (hit.rerank_score !== null) place.append(pill(SCORES.rerank, hit.rerank_score, "strong"));
  if (hit.rerank_error !== null) {
    place.append(element("span", { className: "pill failed", title: hit.rerank_error }, "not reranked"));
  }
  place.append(pill(SCORES[answer.mode], hit.score, hit.rerank_score === null ? "strong" : ""));
  return place;
}

function pill([name, help], score, kind) {
  return element("span", { className: `pill ${kind}`, title: help }, element("b", {}, scoreText(score)), ` ${name}`);
}

// Moves the focus in the grid, by what is next to it on the screen.
export function moveFocus(from, key) {
  const cards = [...byId("results").querySelectorAll(".open")];
  const index = cards.indexOf(from);
  const columns = cards.filter((card) => card.offsetParent && top(card) === top(cards[0])).length || 1;
  const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[key];
  const target = cards[index + step];
  if (target) focusCard(target);
  else if (key === "ArrowUp") byId("words").focus();
}

export function focusCard(open) {
  open?.focus({ preventScroll: true });
  open?.closest(".card").scrollIntoView({ block: "nearest" });
}

const top = (card) => Math.round(card.getBoundingClientRect().top);
