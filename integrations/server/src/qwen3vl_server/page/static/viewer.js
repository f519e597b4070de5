// One hit at full size: its picture or page, its clip from its second, or its text; with scores and metadata.

import { byId, element } from "./dom.js";
import { SCORES, partOf, scoreText, titleOf } from "./results.js";

export function showHit(hit, answer, position) {
  const title = [titleOf(hit), partOf(hit)].filter(Boolean).join(", ");
  byId("viewer-name").textContent = title;
  byId("viewer-source").textContent = hit.source.startsWith("data:") ? "" : hit.source;
  byId("viewer-scores").replaceChildren(...explainScores(hit, answer));
  byId("viewer-text").textContent = hit.kind === "text" ? "" : hit.text;
  byId("viewer-only").hidden = !hit.source || hit.source.startsWith("data:");
  byId("viewer-metadata").replaceChildren(...metadata(hit));
  byId("viewer-position").textContent = position ? `${position.index + 1} of ${position.count}` : "";
  byId("viewer-previous").disabled = !position || position.index === 0;
  byId("viewer-next").disabled = !position || position.index + 1 >= position.count;
  byId("stage").replaceChildren(content(hit, title));
  byId("stage").scrollTo(0, 0);
  const viewer = byId("viewer");
  if (viewer.open) return;
  viewer.showModal();
  viewer.focus(); // the arrows lead to other hits, and no button is marked
}

export function hideHit() {
  byId("stage").replaceChildren(); // ends a video
  if (byId("viewer").open) byId("viewer").close();
}

function content(hit, title) {
  if (hit.media.video) return video(hit);
  if (hit.media.image) return picture(hit, title);
  return element("p", { className: "reading", dir: "auto" }, hit.text);
}

function picture(hit, title) {
  const image = element("img", { src: hit.media.image, alt: title, className: "full" });
  image.addEventListener("error", () => image.replaceWith(failure("The picture is not shown by this server.")));
  const zoom = element("button", { type: "button", className: "zoom", title: "Full size, or fit the window" }, image);
  zoom.addEventListener("click", () => zoom.classList.toggle("large"));
  return zoom;
}

function video(hit) {
  const [start, end] = hit.seconds ?? [0, null];
  const player = element("video", { controls: true, playsInline: true, preload: "auto" });
  player.addEventListener("loadedmetadata", () => {
    if (player.currentTime < start) player.currentTime = start;
  });
  player.addEventListener("error", () => {
    const link = element("a", { href: hit.media.video, download: titleOf(hit) }, "Download it");
    player.replaceWith(failure("This video is not shown by this server, or this browser cannot play it. ", link));
  });
  player.src = `${hit.media.video}#t=${start}${end === null ? "" : `,${end}`}`;
  player.play().catch(() => {}); // where it is not allowed, the controls are there
  return player;
}

function failure(...message) {
  return element("p", { className: "failure" }, ...message);
}

function explainScores(hit, answer) {
  if (hit.score === undefined) return []; // opened by a link, outside of a list
  const rows = [[SCORES[answer.mode], hit.score]];
  if (hit.rerank_score !== null) rows.unshift([SCORES.rerank, hit.rerank_score]);
  const lines = rows.map(([[name, help], score]) =>
    element(
      "div",
      { className: "score" },
      element("span", {}, name),
      bar(score),
      element("b", {}, scoreText(score)),
      element("p", { className: "muted" }, help),
    ),
  );
  if (hit.rerank_error !== null) {
    lines.unshift(element("p", { className: "error" }, `The reranker could not read it: ${hit.rerank_error}`));
  }
  return lines;
}

function bar(score) {
  const filled = element("i");
  filled.style.width = `${100 * Math.max(0, Math.min(1, score))}%`;
  return element("span", { className: "bar" }, filled);
}

function metadata(hit) {
  return Object.entries(hit.metadata).flatMap(([key, value]) => [
    element("dt", {}, key),
    element("dd", {}, typeof value === "string" ? value : JSON.stringify(value)),
  ]);
}

export function listenToViewer({ onClose, onStep, onLike, onOnlySource }) {
  const viewer = byId("viewer");
  byId("viewer-close").addEventListener("click", onClose);
  byId("viewer-like").addEventListener("click", onLike);
  byId("viewer-only").addEventListener("click", onOnlySource);
  byId("viewer-previous").addEventListener("click", () => onStep(-1));
  byId("viewer-next").addEventListener("click", () => onStep(1));
  viewer.addEventListener("cancel", (event) => {
    event.preventDefault();
    onClose();
  });
  viewer.addEventListener("click", (event) => {
    if (event.target === viewer) onClose(); // the backdrop
  });
  viewer.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step && event.target.tagName !== "VIDEO") {
      event.preventDefault();
      onStep(step);
    }
  });
}
