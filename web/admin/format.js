/** Figures as people read them. */

/**
 * A number with at most three digits before a unit's letter. @param {number} value
 * @param {number} step between two letters @param {string[]} letters
 */
function scaled(value, step, letters) {
  let rest = Math.max(0, value);
  let index = 0;
  // What would be rounded up to a whole step is one already.
  while (rest >= step - 0.5 && index < letters.length - 1) {
    rest /= step;
    index += 1;
  }
  const digits = index === 0 || rest >= 100 ? 0 : rest >= 10 ? 1 : 2;
  return { number: rest.toFixed(digits), letter: letters[index] };
}

/** `7`, `1.20 k`, `45.1 M`. @param {number} value */
export function count(value) {
  const { number, letter } = scaled(value, 1000, ['', ' k', ' M', ' G']);
  return number + letter;
}

/** `3.40 Mbit/s`. @param {number} bitsPerSecond */
export function bitrate(bitsPerSecond) {
  const { number, letter } = scaled(bitsPerSecond, 1000, ['', 'k', 'M', 'G', 'T']);
  return `${number} ${letter}bit/s`;
}

/** `512 MiB`. @param {number} amount */
export function bytes(amount) {
  const { number, letter } = scaled(amount, 1024, ['B', 'KiB', 'MiB', 'GiB', 'TiB']);
  return `${number} ${letter}`;
}

/** How long something takes or took: `8 s`, `12 min`, `3 h`, `4 d`. @param {number} milliseconds */
export function duration(milliseconds) {
  const seconds = Math.max(0, Math.floor(milliseconds / 1000));
  if (seconds < 90) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 90) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h` : `${Math.floor(hours / 24)} d`;
}

/** A moment as a clock shows it. @param {number} time milliseconds since the epoch */
export function clock(time) {
  return new Date(time).toLocaleTimeString([], { hour: '2-digit', minute: '2-digit', second: '2-digit', hourCycle: 'h23' });
}

/** The kind of an id and its last characters, which differ: the first ones of an UUIDv7 are its time. @param {string} id */
export function shortId(id) {
  return id.length > 14 ? `${id.slice(0, 4)}…${id.slice(-6)}` : id;
}
