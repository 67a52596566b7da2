// Ways for pictures to come in: chosen, dropped, pasted, taken.

import { openDialog } from "./dialogs.js";
import { h } from "./dom.js";
import { gettext as _ } from "./i18n.js";
import { icon } from "./icons.js";
import { toast } from "./toast.js";

const TYPES = "image/jpeg,image/png,image/webp,image/bmp,image/tiff,.jpg,.jpeg,.png,.webp,.bmp,.tif,.tiff";

// A button that opens the file chooser; `take` gets the files.
export function pickButton(label, take, { primary = false, single = false } = {}) {
  const input = h("input", { type: "file", accept: TYPES, multiple: !single, hidden: true, tabindex: "-1", "aria-hidden": "true" });
  input.addEventListener("change", () => {
    const files = [...input.files];
    input.value = "";
    if (files.length) take(files);
  });
  const button = h("button", { class: primary ? "button primary" : "button", type: "button", onclick: () => input.click() }, icon("upload"), label);
  return [button, input];
}

// Takes files dropped on `element`, and those pasted anywhere. Returns a function that ends this.
export function receiveFiles(element, take, { paste = true } = {}) {
  const ends = new AbortController();
  const options = { signal: ends.signal };
  let depth = 0;
  const mark = (change) => {
    depth = Math.max(0, depth + change);
    element.classList.toggle("receives", depth > 0);
  };
  const holdsFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  element.addEventListener("dragenter", (event) => holdsFiles(event) && mark(1), options);
  element.addEventListener("dragleave", (event) => holdsFiles(event) && mark(-1), options);
  element.addEventListener("dragover", (event) => holdsFiles(event) && event.preventDefault(), options);
  element.addEventListener(
    "drop",
    (event) => {
      if (!holdsFiles(event)) return;
      event.preventDefault();
      depth = 0;
      mark(0);
      if (event.dataTransfer.files.length) take([...event.dataTransfer.files]);
    },
    options,
  );
  if (paste) {
    document.addEventListener(
      "paste",
      (event) => {
        const files = [...(event.clipboardData?.files ?? [])];
        if (!files.length) return;
        event.preventDefault();
        take(files);
      },
      options,
    );
  }
  return () => ends.abort();
}

// A button for the camera. Where the browser gives pages none, the device's own camera application is asked. `narrow`:
// on a phone the picture alone is its label.
export function cameraButton(take, { narrow = false } = {}) {
  const label = [icon("camera"), narrow ? h("span", { class: "narrow-hidden" }, _("Take a picture")) : _("Take a picture")];
  if (navigator.mediaDevices?.getUserMedia) {
    return [h("button", { class: "button", type: "button", onclick: () => openCamera(take) }, label)];
  }
  const input = h("input", { type: "file", accept: "image/*", capture: "environment", hidden: true, tabindex: "-1", "aria-hidden": "true" });
  input.addEventListener("change", () => input.files.length && take([...input.files]));
  return [h("button", { class: "button", type: "button", onclick: () => input.click() }, label), input];
}

async function openCamera(take) {
  let stream;
  try {
    const video = { width: { ideal: 1920 }, height: { ideal: 1080 }, facingMode: { ideal: "environment" } };
    stream = await navigator.mediaDevices.getUserMedia({ video, audio: false });
  } catch (error) {
    toast(error.name === "NotFoundError" ? _("There is no camera on this device.") : _("The camera could not be opened. Allow it in the browser and try again."));
    return;
  }
  const video = h("video", { class: "camera", autoplay: true, muted: true, playsinline: true, srcObject: stream, "aria-label": _("What the camera sees") });
  video.muted = true;
  const shoot = async () => {
    const canvas = h("canvas", { width: video.videoWidth, height: video.videoHeight });
    canvas.getContext("2d").drawImage(video, 0, 0);
    const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.92));
    dialog.close();
    if (blob) take([new File([blob], "camera.jpg", { type: "image/jpeg" })]);
  };
  const button = h("button", { class: "button primary", type: "button", disabled: true, onclick: shoot }, icon("camera"), _("Take the picture"));
  video.addEventListener("loadeddata", () => {
    button.disabled = false;
    button.focus();
  });
  const actions = h("div", { class: "dialog-actions" }, h("button", { class: "button", type: "button", onclick: () => dialog.close() }, _("Cancel")), button);
  const dialog = openDialog(_("Take a picture"), [video, actions], {
    wide: true,
    onclose: () => stream.getTracks().forEach((track) => track.stop()),
  });
}
