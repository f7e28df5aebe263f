/* Photographs from the camera. The picture stays in this page until it is sent. */

import { button, element, problemNotice } from "./dom.js";
import { openDialog } from "./dialog.js";
import { count } from "./words.js";

/** Whether the browser lets this page ask for a camera: over https, or on the machine itself. */
export const hasCamera = () => Boolean(navigator.mediaDevices?.getUserMedia);

/** A window with the camera's picture. taken: told the photographs; several: more than one. */
export async function cameraDialog({ several, taken }) {
  const video = element("video", {
    autoplay: true,
    muted: true,
    playsinline: true,
    "aria-label": "What the camera sees",
  });
  video.muted = true; // the attribute alone does not hold for elements that scripts make
  const said = element("p", { role: "status" }, "Waiting for the camera");
  const shutter = button("Take photograph", () => take(), { class: "main", disabled: true });
  const photographs = [];
  let stream = null;

  const dialog = openDialog({
    title: several ? "Take photographs" : "Take a photograph",
    body: [element("div", { class: "viewfinder" }, video), said],
    actions: [shutter, button(several ? "Done" : "Cancel", () => dialog.close())],
    closed: () => {
      stop(stream);
      stream = null;
      if (photographs.length) taken(photographs);
    },
  });

  async function take() {
    photographs.push(await photographOf(video, photographs.length + 1));
    if (!several) dialog.close();
    said.textContent = `${count(photographs.length, "photograph")} taken`;
  }

  try {
    const opened = await navigator.mediaDevices.getUserMedia({
      video: { facingMode: "user", width: { ideal: 1280 }, height: { ideal: 960 } },
    });
    if (!dialog.open) return stop(opened);
    stream = opened;
    video.srcObject = stream;
    await video.play();
    shutter.disabled = false;
    shutter.focus();
    said.textContent = several
      ? "Turn the head a little from one photograph to the next."
      : "Look at the camera.";
  } catch (error) {
    if (dialog.open) said.replaceWith(problemNotice(refusal(error)));
  }
}

function stop(stream) {
  stream?.getTracks().forEach((track) => track.stop());
}

/** The picture that the video shows, as a file. */
function photographOf(video, number) {
  const canvas = element("canvas", { width: video.videoWidth, height: video.videoHeight });
  canvas.getContext("2d").drawImage(video, 0, 0);
  return new Promise((resolve) => {
    const made = (blob) => resolve(new File([blob], `camera-${number}.jpg`, { type: blob.type }));
    canvas.toBlob(made, "image/jpeg", 0.95);
  });
}

function refusal(error) {
  const details = {
    NotAllowedError: "the browser was not allowed to use it; the address bar has the permission",
    NotFoundError: "none was found on this device",
    NotReadableError: "another program may be using it",
  };
  return { title: "No picture from the camera", detail: details[error.name] ?? error.message };
}
