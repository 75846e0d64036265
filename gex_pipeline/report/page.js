// Click a segment to play it; the segment that plays is marked. The page reads the same without this.
for (const sample of document.querySelectorAll(".sample")) {
  const video = sample.querySelector("video");
  const marks = [...sample.querySelectorAll("[data-from]")];
  if (!video || marks.length === 0) continue;
  for (const mark of marks) {
    mark.classList.add("seeks");
    mark.addEventListener("click", () => {
      video.currentTime = Number(mark.dataset.from) + 0.01;
      video.play();
    });
  }
  video.addEventListener("timeupdate", () => {
    for (const mark of marks) {
      const isNow = video.currentTime >= Number(mark.dataset.from) && video.currentTime < Number(mark.dataset.to);
      mark.classList.toggle("now", isNow);
    }
  });
}
