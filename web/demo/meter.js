/** The microphone's level as a row of lamps, so that people see that they are heard. */

import { make } from './dom.js';

const LAMPS = 14;

export class Meter {
  #lamps;
  /** @type {AudioContext | null} */
  #context = null;
  /** @type {MediaStreamAudioSourceNode | null} */
  #source = null;
  #frame = 0;

  /** @param {HTMLElement} element */
  constructor(element) {
    this.#lamps = Array.from({ length: LAMPS }, () => make('i'));
    element.replaceChildren(...this.#lamps);
  }

  /** @param {MediaStreamTrack | null} track null turns it dark */
  show(track) {
    this.stop();
    if (!track) return;
    this.#context = new AudioContext();
    const context = this.#context;
    if (context.state === 'suspended') {
      // Sound analysis may need a gesture first, as playing does.
      addEventListener('pointerdown', () => context.state === 'suspended' && context.resume(), { once: true });
    }
    const analyser = context.createAnalyser();
    analyser.fftSize = 512;
    this.#source = context.createMediaStreamSource(new MediaStream([track]));
    this.#source.connect(analyser);
    const samples = new Float32Array(analyser.fftSize);
    let shown = 0;
    const draw = () => {
      analyser.getFloatTimeDomainData(samples);
      let sum = 0;
      for (const sample of samples) sum += sample * sample;
      // −60 dB to −10 dB over the row; falls slower than it rises, as people expect of a meter.
      const decibel = 10 * Math.log10(sum / samples.length + 1e-9);
      const level = Math.min(1, Math.max(0, (decibel + 60) / 50));
      shown = Math.max(level, shown - 0.03);
      this.#light(shown);
      this.#frame = requestAnimationFrame(draw);
    };
    draw();
  }

  stop() {
    cancelAnimationFrame(this.#frame);
    this.#source?.disconnect();
    this.#source = null;
    this.#context?.close().catch(() => {});
    this.#context = null;
    this.#light(0);
  }

  /** @param {number} level 0 to 1 */
  #light(level) {
    const lit = Math.round(level * LAMPS);
    this.#lamps.forEach((lamp, index) => lamp.classList.toggle('lit', index < lit));
  }
}
