/**
 * In the page, before anything else: media is encrypted end to end (W3C webrtc-encoded-transform), as applications do it that use
 * VP8: every byte of every frame behind its first ten, or one of a voice, which say whether it is a keyframe. At its end each frame has a
 * check of what it was; a frame that is not that again, with this key, is not decoded. The key is no secret and the cipher none; what matters
 * is that nobody on the way can read a frame, and that each arrives as it was sent.
 *
 * @param {number} key one byte
 */
export function encryptMedia(key) {
  const code = `
    const first = (frame) => (frame instanceof RTCEncodedVideoFrame ? 10 : 1);
    const change = (bytes, from) => {
      for (let index = from; index < bytes.length; index += 1) bytes[index] ^= ${key};
      return bytes;
    };
    // FNV-1a.
    const check = (bytes) => bytes.reduce((sum, byte) => Math.imul(sum ^ byte, 16777619) >>> 0, 2166136261);
    const encrypt = (frame, controller) => {
      const plain = new Uint8Array(frame.data);
      const sent = new Uint8Array(plain.length + 4);
      new DataView(sent.buffer).setUint32(plain.length, check(plain));
      sent.set(change(plain, first(frame)));
      frame.data = sent.buffer;
      controller.enqueue(frame);
    };
    const decrypt = (frame, controller) => {
      const came = new Uint8Array(frame.data);
      if (came.length < 4) return;
      const plain = change(came.slice(0, -4), first(frame));
      if (new DataView(frame.data).getUint32(came.length - 4) !== check(plain)) return;
      frame.data = plain.buffer;
      controller.enqueue(frame);
    };
    onrtctransform = ({ transformer: { readable, writable, options } }) => {
      const transform = options.sends ? encrypt : decrypt;
      readable.pipeThrough(new TransformStream({ transform })).pipeTo(writable);
    };`;
  const worker = new Worker(URL.createObjectURL(new Blob([code], { type: 'text/javascript' })));
  const RealConnection = window.RTCPeerConnection;
  window.RTCPeerConnection = class extends RealConnection {
    /** @param {RTCConfiguration} [configuration] */
    constructor(configuration) {
      super(configuration);
      this.addEventListener('track', ({ receiver }) => {
        receiver.transform ??= new RTCRtpScriptTransform(worker, { sends: false });
      });
    }

    /** @param {MediaStreamTrack | string} track @param {RTCRtpTransceiverInit} [init] */
    addTransceiver(track, init) {
      const transceiver = super.addTransceiver(track, init);
      transceiver.sender.transform = new RTCRtpScriptTransform(worker, { sends: true });
      return transceiver;
    }
  };
}
