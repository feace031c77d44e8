// A video or camera, frame by frame: the next frame goes out when the last one is answered.

import { grabFrame } from "./picture.js";

const SIDE = 640; // of the frames that are sent
const AGAIN_MS = 1500; // until a stream that broke is tried again

export class Live {
  /**
   * engine: what segments. video: an element that plays. settings(): those of now.
   * onFound(image, found, ms) for each frame, onProblem(error) where one fails.
   */
  constructor({ engine, video, name, settings, onFound, onProblem }) {
    Object.assign(this, { engine, video, name, settings, onFound, onProblem });
    this.prompts = []; // those that the stream has still to be told
    this.closed = this.changed = this.pointed = false;
    this.stream = this.image = null;
    this.#run();
  }

  /** Has the frames from now on segmented with other settings. */
  restart(pointed = this.pointed) {
    this.changed = true;
    this.pointed = pointed;
    if (!pointed) this.prompts = [];
    this.#wake();
  }

  /** Follows what is pointed at in the frame that is shown. */
  point(prompt) {
    if (!this.pointed) this.restart(true);
    this.prompts.push(prompt);
    this.#wake();
  }

  close() {
    this.closed = true;
    this.stream?.close();
    this.video.pause();
    for (const track of this.video.srcObject?.getTracks() ?? []) track.stop();
    if (this.video.src) URL.revokeObjectURL(this.video.src);
    this.video.removeAttribute("src");
    this.video.srcObject = null;
    this.#wake();
  }

  async #run() {
    while (!this.closed) {
      try {
        await this.#turn();
      } catch (error) {
        if (this.closed) return;
        this.onProblem(error);
        this.changed = true;
        await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
      }
    }
  }

  async #turn() {
    if (this.changed || !this.stream) await this.#open();
    const prompts = this.prompts.splice(0);
    if (!prompts.length || !this.image) {
      await this.#newFrame();
      if (this.closed || this.changed || (this.prompts.length && this.image)) return;
      this.image = grabFrame(this.video, SIDE, this.name);
    }
    const begun = performance.now();
    for (const prompt of prompts) this.stream.prompt(prompt);
    const image = this.image;
    const found = await this.stream.next(image);
    if (!this.closed && !this.changed) this.onFound(image, found, performance.now() - begun);
  }

  async #open() {
    this.stream?.close();
    this.stream = null;
    this.changed = false;
    this.fresh = true;
    this.stream = await this.engine.stream(this.settings(), this.pointed);
    if (this.closed) this.stream.close();
  }

  /** Waits until the video shows another frame, or something else is to be done. */
  #newFrame() {
    const { video } = this;
    if (this.fresh && video.readyState >= HTMLMediaElement.HAVE_CURRENT_DATA) {
      this.fresh = false;
      return undefined;
    }
    return new Promise((resolve) => {
      const number = video.requestVideoFrameCallback?.(resolve) ?? requestAnimationFrame(resolve);
      this.woken = () => {
        video.cancelVideoFrameCallback?.(number);
        resolve();
      };
    });
  }

  #wake() {
    this.woken?.();
    this.woken = null;
  }
}
