// The video or camera that plays behind the picture, and its buttons.

const RATE_OVER = 10; // results over which the rate is taken

export class Player {
  constructor(elements, { onSnapshot, onStop }) {
    Object.assign(this, elements);
    this.video = null;
    this.results = [];
    this.snapshot.addEventListener("click", onSnapshot);
    this.stop.addEventListener("click", onStop);
    this.play.addEventListener("click", () => (this.video.paused ? this.video.play() : this.video.pause()));
    this.seek.addEventListener("input", () => {
      this.video.currentTime = (this.seek.value / 1000) * this.video.duration;
    });
  }

  /** Plays the address of a video, or what a camera gives; the element, once it has a frame. */
  async open(source) {
    const video = document.createElement("video");
    const isCamera = source instanceof MediaStream;
    video.muted = video.loop = video.playsInline = true;
    await new Promise((resolve, reject) => {
      video.onloadeddata = resolve;
      video.onerror = reject;
      if (isCamera) video.srcObject = source;
      else video.src = source;
    });
    video.onplay = video.onpause = () => {
      this.play.textContent = video.paused ? "Play" : "Pause";
      this.play.setAttribute("aria-pressed", String(!video.paused));
    };
    video.ontimeupdate = () => {
      this.seek.value = (1000 * video.currentTime) / video.duration;
    };
    this.video = video;
    this.box.hidden = false;
    this.seek.hidden = isCamera;
    this.snapshot.hidden = !isCamera;
    await video.play();
    return video;
  }

  close() {
    this.video = null;
    this.results = [];
    this.box.hidden = true;
  }

  /** Results a second, of the last ones. */
  rate() {
    this.results.push(performance.now());
    if (this.results.length > RATE_OVER) this.results.shift();
    const took = this.results.at(-1) - this.results[0];
    return took ? (((this.results.length - 1) * 1000) / took).toFixed(1) : "0";
  }
}
