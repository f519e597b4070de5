// The words, and the picture or stored document beside them: chosen, dropped, pasted, or "more like this".

import { request } from "./api.js";
import { byId, element, icon, showError } from "./dom.js";

// A picture cannot be in a link. The pictures of this tab are found again by the number that its history has.
const pictures = new Map();

export function keepPicture(file) {
  pictures.set(pictures.size + 1, file);
  return pictures.size;
}

export const pictureOf = (number) => pictures.get(number) ?? null;

// While the dialog for adding documents is open, what is dropped and pasted is for it.
export function listenForPictures(onPicture, onDocuments) {
  const use = (files) => {
    if (byId("add").open) {
      onDocuments([...files]);
      return;
    }
    const file = [...files].find((candidate) => candidate.type.startsWith("image/"));
    if (file) onPicture(file);
    else if (files.length > 0) {
      const hint = byId("open-add").hidden ? "" : " To add it to the library, use the button Add.";
      showError(`That is no picture. Drop a PNG, JPEG, WebP, GIF, AVIF or BMP file.${hint}`);
    }
  };
  byId("pick").addEventListener("click", () => byId("file").click());
  byId("file").addEventListener("change", () => {
    use(byId("file").files);
    byId("file").value = "";
  });
  document.addEventListener("paste", (event) => {
    if (event.clipboardData.files.length === 0) return;
    event.preventDefault();
    use(event.clipboardData.files);
  });
  let depth = 0; // entering a child is reported before leaving its parent
  const hasFiles = (event) => event.dataTransfer?.types.includes("Files");
  const show = () => {
    byId("drop").hidden = depth <= 0 || byId("add").open;
    byId("add-drop").classList.toggle("over", depth > 0);
  };
  document.addEventListener("dragenter", (event) => {
    if (hasFiles(event)) depth += 1;
    show();
  });
  document.addEventListener("dragleave", (event) => {
    if (hasFiles(event)) depth -= 1;
    show();
  });
  document.addEventListener("dragover", (event) => {
    if (hasFiles(event)) event.preventDefault();
  });
  document.addEventListener("drop", (event) => {
    depth = 0;
    show();
    if (!hasFiles(event)) return;
    event.preventDefault();
    use(event.dataTransfer.files);
  });
}

// Shows what is searched by beside the words: a File, a stored document's id, or nothing.
export async function showChip(picture, like) {
  const chip = byId("chip");
  chip.hidden = !picture && !like;
  chip.dataset.shown = picture ? picture.name : like;
  byId("chip-remove").setAttribute("aria-label", like ? "Remove the document" : "Remove the picture");
  byId("chip-image").replaceChildren(icon("picture"));
  byId("chip-name").textContent = picture ? "" : like ? "like …" : "";
  if (picture) await showPicture(picture);
  else if (like) await showDocument(like);
}

async function showPicture(picture) {
  try {
    const bitmap = await createImageBitmap(picture, { resizeHeight: 64 });
    const canvas = element("canvas", { width: bitmap.width, height: bitmap.height, title: picture.name });
    canvas.getContext("2d").drawImage(bitmap, 0, 0);
    if (byId("chip").dataset.shown === picture.name) byId("chip-image").replaceChildren(canvas);
  } catch {
    // A format that this browser does not know; the server may.
    byId("chip-name").textContent = picture.name;
  }
}

async function showDocument(id) {
  try {
    const found = await request(`v1/documents/${encodeURIComponent(id)}`);
    if (byId("chip").dataset.shown !== id) return;
    byId("chip-name").textContent = `like ${fileName(found.source) || found.kind}`;
    if (found.media.thumbnail) byId("chip-image").replaceChildren(element("img", { src: found.media.thumbnail, alt: "" }));
  } catch (error) {
    showError(error.message);
  }
}

export function fileName(source) {
  return source.startsWith("data:") ? "" : source.split(/[/\\]/).filter(Boolean).pop() ?? "";
}
