/**
 * For the pictures in the README only: people and a screen that are drawn, in place of Chromium's green test card.
 * Ordinary runs use Chromium's fake devices.
 */

export const SCENIC = process.env.SWITCHYARD_TEST_SCREENSHOTS === 'docs';

/** In the page. @param {string} name decides the looks */
export function drawCamera(name) {
  const LOOKS = /** @type {Record<string, string[]>} */ ({
    Ada: ['#27364f', '#e8a87c', '#3b2417', '#c65f63'],
    Ben: ['#20463f', '#c98d68', '#1d1a1a', '#4f7cac'],
    Eve: ['#4a2f4f', '#f0c9a6', '#8a4b2a', '#e2b04a'],
  });
  const [wall, skin, hair, shirt] = LOOKS[name] ?? LOOKS.Ada;

  /** @param {CanvasRenderingContext2D} pen @param {number} time seconds */
  function drawPerson(pen, time) {
    const sway = Math.sin(time * 1.3) * 6;
    const light = pen.createLinearGradient(0, 0, 640, 360);
    light.addColorStop(0, wall);
    light.addColorStop(1, '#0f1720');
    pen.fillStyle = light;
    pen.fillRect(0, 0, 640, 360);
    pen.fillStyle = 'rgba(255, 255, 255, 0.07)';
    pen.fillRect(440, 40, 130, 150);
    pen.fillRect(60, 210, 120, 12);
    pen.fillRect(70, 150, 18, 60);
    pen.fillRect(94, 160, 14, 50);
    pen.fillRect(114, 144, 22, 66);
    const ellipse = (/** @type {string} */ fill, /** @type {number[]} */ [x, y, rx, ry]) => {
      pen.fillStyle = fill;
      pen.beginPath();
      pen.ellipse(x + sway, y, rx, ry, 0, 0, 7);
      pen.fill();
    };
    ellipse(shirt, [320, 390, 150, 120]);
    ellipse(skin, [320, 265, 34, 50]);
    ellipse(hair, [320, 150, 82, 88]);
    ellipse(skin, [320, 172, 66, 80]);
    ellipse(hair, [320, 98, 70, 34]);
    const blink = time % 4 < 0.15 ? 1.5 : 7;
    for (const x of [296, 344]) ellipse('#23201f', [x, 165, 6, blink]);
    ellipse('#9c4a43', [320, 214, 18, 4 + Math.abs(Math.sin(time * 5)) * 6]);
  }

  /** @param {CanvasRenderingContext2D} pen @param {number} time */
  function drawSlide(pen, time) {
    pen.fillStyle = '#f6f4ee';
    pen.fillRect(0, 0, 1280, 720);
    pen.fillStyle = '#1f2a33';
    pen.font = '600 46px sans-serif';
    pen.fillText('Joins per minute', 80, 110);
    pen.font = '24px sans-serif';
    pen.fillStyle = '#6b7780';
    pen.fillText('two regions, last twelve hours', 80, 152);
    for (let bar = 0; bar < 12; bar += 1) {
      const height = 120 + 240 * Math.abs(Math.sin(bar * 0.55 + 0.4)) + 8 * Math.sin(time * 2 + bar);
      pen.fillStyle = '#2f8f83';
      pen.fillRect(90 + bar * 94, 620 - height, 38, height);
      pen.fillStyle = '#e2a03f';
      pen.fillRect(132 + bar * 94, 620 - height * 0.62, 26, height * 0.62);
    }
    pen.fillStyle = '#c9ced2';
    pen.fillRect(80, 622, 1130, 3);
  }

  /** @param {number} width @param {number} height @param {typeof drawPerson} draw */
  function streamOf(width, height, draw) {
    const canvas = Object.assign(document.createElement('canvas'), { width, height });
    const pen = /** @type {CanvasRenderingContext2D} */ (canvas.getContext('2d'));
    draw(pen, 0);
    setInterval(() => draw(pen, performance.now() / 1000), 100);
    return canvas.captureStream(10);
  }

  const devices = navigator.mediaDevices;
  if (!devices) return;
  const open = devices.getUserMedia.bind(devices);
  devices.getUserMedia = async (constraints = {}) => {
    const { audio, video } = constraints;
    const stream = audio ? await open({ audio }) : new MediaStream();
    if (video) streamOf(640, 360, drawPerson).getTracks().forEach((track) => stream.addTrack(track));
    return stream;
  };
  devices.getDisplayMedia = async () => streamOf(1280, 720, drawSlide);
}
