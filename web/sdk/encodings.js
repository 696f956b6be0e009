/**
 * In which sizes a camera is sent at once (simulcast): everyone gets the one that they can use. A screen is sent in one: what
 * matters there is that it can be read.
 */

/** What a picture of so many pixels needs, in bit/s. */
const RATES = [
  [1920 * 1080, 3_000_000],
  [1280 * 720, 1_700_000],
  [960 * 540, 1_000_000],
  [640 * 360, 600_000],
  [480 * 270, 350_000],
  [320 * 180, 180_000],
];
const LOWEST_RATE = 120_000;

/** Names, lowest first, and how much smaller than the camera's picture. */
const SIZES = /** @type {const} */ ([
  ['q', 4],
  ['h', 2],
  ['f', 1],
]);

/** @param {number} pixels */
function rateOf(pixels) {
  return (RATES.find(([least]) => pixels >= least) ?? [0, LOWEST_RATE])[1];
}

/**
 * The encodings of a track, in ascending quality. A small picture has fewer: a quarter of it would be of no use.
 * @param {import('./publication.js').LocalPublication} publication
 * @returns {RTCRtpEncodingParameters[]} empty: one encoding as the browser likes it
 */
export function encodingsFor({ kind, source, track, simulcast }) {
  if (kind !== 'video' || !simulcast) return [];
  const { width = 1280, height = 720 } = track.getSettings?.() ?? {};
  const long = Math.max(width, height);
  const count = source === 'screen' || long < 480 ? 1 : long < 960 ? 2 : 3;
  if (count === 1) return [];
  return SIZES.slice(-count).map(([rid, scale]) => ({
    rid,
    scaleResolutionDownBy: scale,
    maxBitrate: rateOf((width * height) / scale ** 2),
  }));
}

/**
 * Sends as many encodings of a track as the server can use, from the lowest up; 0: nobody watches.
 * @param {RTCRtpSender} sender
 * @param {() => number} wanted asked again after each change, which takes its time
 */
export async function sendOnly(sender, wanted) {
  for (;;) {
    const parameters = sender.getParameters();
    const encodings = parameters.encodings ?? [];
    const count = wanted();
    if (encodings.every(({ active = true }, index) => active === index < count)) return;
    encodings.forEach((encoding, index) => {
      encoding.active = index < count;
    });
    await sender.setParameters(parameters);
  }
}
