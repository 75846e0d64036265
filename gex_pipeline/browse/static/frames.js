// The frames of a sample: a large one with all of them beneath it, where there is no video to play; else the small ones.

import { el, markCurrent, plural, position, sampleAddress } from "/dom.js";

function addressOf(open, number) {
  return `${sampleAddress("media", open)}&frame=${number}`;
}

// Frames are those in the middle of equal spans.
function timeOf(sample, number) {
  return sample.duration_s ? ((number + 0.5) * sample.duration_s) / sample.frames.num : null;
}

function strip(sample, open, choose) {
  return Array.from({ length: sample.frames.num }, (_, number) => {
    const time = timeOf(sample, number);
    const name = time === null ? `frame ${number + 1}` : `frame ${number + 1}, at ${position(time)}`;
    const picture = el("img", { src: addressOf(open, number), alt: name, loading: "lazy" });
    if (!choose) return el("span", { title: name }, picture);
    return el("button", { type: "button", title: name, onclick: () => choose(number) }, picture);
  });
}

// Draws into `place`; returns what the list of segments steers: `go` to a segment, and `watch` what is shown.
export function drawFrames(place, sample, open) {
  const num = sample.frames?.num;
  if (!num) {
    const reason = sample.frames?.error ?? "there are none";
    place.append(el("p", { class: "empty", role: "alert" }, `The frames cannot be shown: ${reason}.`));
    return null;
  }
  let now = 0;
  let tell = () => {};
  const large = el("img", { class: "frame", alt: sample.text });
  const said = el("p", { class: "frame-at" });
  const small = strip(sample, open, show);
  large.addEventListener("error", async () => {
    const response = await fetch(large.src).catch(() => null);
    const reason = response === null ? "the server does not answer" : response.ok ? "it is no picture" : (await response.json()).error;
    said.textContent = `Frame ${now + 1} cannot be shown: ${reason}.`;
  });
  const list = el("div", { class: "strip" }, small);
  list.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    event.stopPropagation();
    show(Math.min(Math.max(now + step, 0), num - 1));
    small[now].focus();
  });
  place.append(large, said, list);

  function show(number) {
    now = number;
    const time = timeOf(sample, number);
    large.src = addressOf(open, number);
    said.textContent = `${number + 1} of ${plural(num, "frame")}${time === null ? "" : `, shown at ${position(time)}`}`;
    small.forEach((button, index) => markCurrent(button, index === number));
    if (time !== null) tell(time);
  }

  show(0);
  if (!sample.duration_s) return null;
  return {
    go(segment) {
      const middle = segment.offset_s + segment.duration_s / 2;
      show(Math.min(Math.floor((middle / sample.duration_s) * num), num - 1));
    },
    watch(callback) {
      tell = callback;
      show(now);
    },
  };
}

// The frames that a sample has beside its video, folded away until somebody wants them.
export function framesBeside(sample, open) {
  if (!sample.frames?.num || sample.kind === "frames") return null;
  const { num, width_px, height_px } = sample.frames;
  const size = width_px ? ` of ${width_px}×${height_px}` : "";
  return el("details", { class: "frames-beside" }, el("summary", {}, `${plural(num, "frame")}${size} beside the video`), el("div", { class: "strip" }, strip(sample, open, null)));
}
