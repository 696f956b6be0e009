/**
 * What an interruption costs, measured in the page.
 *
 * **Recovery** (`awaitRecovery`): the moment at which video of every one of the others was decoded, and sound of every one of
 * them who is not muted was played, by connections that were made after the given moment. Looked at every 50 ms.
 *
 * **Audio gap** (`startGapMeter`): every microphone is a constant tone of 440 Hz. What is audible are the page's audio elements that are
 * not muted; their tracks are added up per participant in an AudioWorklet. The gap is the longest run of 128-sample blocks
 * with an RMS below 0.003 (the tone has 0.14), in milliseconds of the audio clock. A page that stalls does not count, a machine that
 * starves the audio thread of a sender or receiver does. Concealment (the receiver makes sound up for what is missing, for
 * a few dozen milliseconds) hides that much of a gap, as it does from the ear; how much was made up is reported beside it
 * (`concealedSamples` of the connections that are open at the end).
 */

import { eventually } from './eventually.js';

/** In the page, before anything else. */
function install() {
  const RealConnection = window.RTCPeerConnection;
  /** Connections by the moment of their making. @type {WeakMap<RTCPeerConnection, number>} */
  const madeAt = new WeakMap();
  window.RTCPeerConnection = class extends RealConnection {
    /** @param {RTCConfiguration} [configuration] */
    constructor(configuration) {
      super(configuration);
      madeAt.set(this, Date.now());
    }
  };

  const devices = navigator.mediaDevices;
  if (!devices) return;
  /** @type {AudioContext | undefined} */
  let context;
  const audioContext = () => (context ??= new AudioContext({ sampleRate: 48_000 }));
  const open = devices.getUserMedia.bind(devices);
  devices.getUserMedia = async (constraints = {}) => {
    const stream = constraints.video ? await open({ video: constraints.video }) : new MediaStream();
    if (constraints.audio) {
      const destination = audioContext().createMediaStreamDestination();
      const volume = new GainNode(audioContext(), { gain: 0.2 });
      const tone = new OscillatorNode(audioContext(), { frequency: 440 });
      tone.connect(volume).connect(destination);
      tone.start();
      for (const track of destination.stream.getAudioTracks()) stream.addTrack(track);
    }
    return stream;
  };

  /** @type {Set<HTMLAudioElement>} */
  const elements = new Set();
  /** What is connected to a meter. @type {Map<MediaStreamTrack, { source: AudioNode, meter: AudioWorkletNode }>} */
  const connected = new Map();
  /** @type {WeakMap<MediaStreamTrack, string>} */
  const owners = new WeakMap();
  /** By participant. @type {Map<string, AudioWorkletNode>} */
  const meters = new Map();
  let measuring = false;

  /** @param {MediaStreamTrack} track */
  function ownerOf(track) {
    for (const participant of window.switchyard?.room?.participants.values() ?? []) {
      if (participant.trackBySource('microphone')?.track === track) owners.set(track, participant.id);
    }
    return owners.get(track);
  }

  /** Called at every change of what is audible, in the same turn. */
  function update() {
    if (!measuring) return;
    /** @type {Set<MediaStreamTrack>} */
    const audible = new Set();
    for (const element of elements) {
      if (!(element.srcObject instanceof MediaStream)) elements.delete(element);
      else if (!element.muted) for (const track of element.srcObject.getAudioTracks()) audible.add(track);
    }
    for (const track of audible) {
      const owner = ownerOf(track);
      if (connected.has(track) || !owner) continue;
      const meter = meters.get(owner) ?? new AudioWorkletNode(audioContext(), 'gap-meter');
      meters.set(owner, meter);
      const source = audioContext().createMediaStreamSource(new MediaStream([track]));
      source.connect(meter).connect(audioContext().destination);
      connected.set(track, { source, meter });
    }
    for (const [track, { source, meter }] of connected) {
      if (audible.has(track)) continue;
      source.disconnect(meter);
      connected.delete(track);
    }
  }

  window.Audio = class extends Audio {
    /** @param {MediaProvider | null} value */
    set srcObject(value) {
      super.srcObject = value;
      elements.add(this);
      update();
    }
    get srcObject() {
      return super.srcObject;
    }
    /** @param {boolean} value */
    set muted(value) {
      super.muted = value;
      update();
    }
    get muted() {
      return super.muted;
    }
  };

  const processor = `
    registerProcessor('gap-meter', class extends AudioWorkletProcessor {
      constructor() {
        super();
        this.heard = false;
        this.run = this.longest = 0;
        this.port.onmessage = ({ data }) => {
          if (data === 'reset') this.longest = this.run = 0;
          this.port.postMessage({ heard: this.heard, milliseconds: Math.max(this.longest, this.run) / sampleRate * 1000 });
        };
      }
      process([[channel]]) {
        let sum = 0;
        if (channel) for (const sample of channel) sum += sample * sample;
        if (channel && Math.sqrt(sum / channel.length) > 0.003) {
          this.heard = true;
          this.longest = Math.max(this.longest, this.run);
          this.run = 0;
        } else if (this.heard) {
          this.run += 128;
        }
        return true;
      }
    });`;

  Object.assign(window, {
    madeAt,
    gapMeter: {
      async start() {
        if (!measuring) {
          await audioContext().audioWorklet.addModule(URL.createObjectURL(new Blob([processor], { type: 'text/javascript' })));
          measuring = true;
          update();
        }
        await this.ask('reset');
      },
      /** @param {string} question */
      async ask(question) {
        return Promise.all(
          [...meters.values()].map(
            (meter) =>
              new Promise((resolve) => {
                meter.port.onmessage = ({ data }) => resolve(data);
                meter.port.postMessage(question);
              }),
          ),
        );
      },
    },
  });
}

/** How a person's browser has to be opened for meters: their code is no part of the page that the server vouches for. */
export const METERED = { bypassCSP: true };

/** Before the page is opened. @param {import('./person.js').Person} person */
export async function installMeters(person) {
  await person.context.addInitScript(install);
}

/**
 * @param {import('./person.js').Person} person
 * @param {number} since Unix milliseconds
 * @param {number} others how many others there are
 * @param {number} [seconds] patience
 * @returns {Promise<number>} Unix milliseconds
 */
export function awaitRecovery(person, since, others, seconds = 60) {
  return person.page.evaluate(
    async ([after, expected, patience]) => {
      const deadline = Date.now() + patience * 1000;
      const { room } = window.switchyard;
      let seen = '';
      while (Date.now() < deadline) {
        const peer = room.peerConnection;
        const made = peer ? /** @type {any} */ (window).madeAt.get(peer) : 0;
        let complete = 0;
        seen = `${room.connectionState}, connection ${made - after} ms`;
        if (made >= after) {
          const report = /** @type {Map<string, any>} */ (await peer.getStats());
          const inbound = [...report.values()].filter(({ type }) => type === 'inbound-rtp');
          for (const participant of room.participants.values()) {
            const camera = participant.trackBySource('camera');
            const microphone = participant.trackBySource('microphone');
            const frames = inbound.find(({ mid }) => mid === camera?.mid)?.framesDecoded ?? 0;
            // Nothing is forwarded of who is muted.
            const sound = microphone?.muted ? 1 : (microphone?.receiver?.getSynchronizationSources().length ?? 0);
            seen += `; ${participant.name}: ${frames} frames, ${sound} sound`;
            if (frames > 0 && sound > 0) complete += 1;
          }
          if (complete >= expected) return Date.now();
        }
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
      throw new Error(`no recovery within ${patience} s: ${seen}`);
    },
    /** @type {const} */ ([since, others, seconds]),
  );
}

/**
 * Begins to measure, or to measure anew, once everybody else is heard.
 * @param {import('./person.js').Person} person @param {number} others how many others there are
 */
export async function startGapMeter(person, others) {
  await person.page.evaluate(() => /** @type {any} */ (window).gapMeter.start());
  await eventually(`${person.name}'s meter hears everybody`, async () => {
    const answers = await person.page.evaluate(() => /** @type {any} */ (window).gapMeter.ask('so far'));
    return answers.length === others && answers.every((/** @type {any} */ { heard }) => heard);
  });
  await person.page.evaluate(() => /** @type {any} */ (window).gapMeter.ask('reset'));
}

/**
 * The longest gap since the start; measuring goes on.
 * @param {import('./person.js').Person} person
 * @returns {Promise<{ gap: number, concealed: number, heard: number }>} milliseconds; `heard`: of how many participants
 */
export function readGapMeter(person) {
  return person.page.evaluate(async () => {
    const answers = await /** @type {any} */ (window).gapMeter.ask('so far');
    let concealed = 0;
    for (const peer of window.switchyard.room.peerConnections) {
      for (const stats of /** @type {Map<string, any>} */ (await peer.getStats()).values()) {
        if (stats.type === 'inbound-rtp') concealed = Math.max(concealed, (stats.concealedSamples ?? 0) / 48);
      }
    }
    const gaps = answers.map((/** @type {any} */ { milliseconds }) => milliseconds);
    return { gap: Math.max(0, ...gaps), concealed, heard: gaps.length };
  });
}
