/**
 * Where the tiles go. Pure arithmetic in CSS pixels: the number of tiles and the room there is in,
 * rectangles out.
 */

/** @typedef {{ x: number, y: number, width: number, height: number }} Rect */

/** A tile is never wider than this (width / height). */
const WIDEST = 16 / 9;
/** Width / height that a shared screen is given on an upright stage. */
const SCREEN_SHAPE = 4 / 3;
/** On upright screens a tile may be this narrow: faces are upright too, and the picture is cropped. */
const NARROWEST_UPRIGHT = 4 / 5;

/**
 * The grid with the largest tiles: every number of columns is tried. The last row is centred.
 * @param {number} count
 * @param {number} width
 * @param {number} height
 * @param {{ gap?: number, x?: number, y?: number }} [options]
 * @returns {{ columns: number, rects: Rect[] }}
 */
export function gridLayout(count, width, height, { gap = 10, x = 0, y = 0 } = {}) {
  if (count === 0 || width <= 0 || height <= 0) return { columns: 0, rects: [] };
  const narrowest = height > width * 1.15 ? NARROWEST_UPRIGHT : WIDEST;
  let best = { columns: 1, width: 0, height: 0 };
  for (let columns = 1; columns <= count; columns += 1) {
    const rows = Math.ceil(count / columns);
    const tile = fit((width - gap * (columns - 1)) / columns, (height - gap * (rows - 1)) / rows, narrowest);
    if (tile.width * tile.height > best.width * best.height) best = { columns, ...tile };
  }
  const rows = Math.ceil(count / best.columns);
  const top = y + (height - rows * best.height - (rows - 1) * gap) / 2;
  const rects = [];
  for (let index = 0; index < count; index += 1) {
    const row = Math.floor(index / best.columns);
    const inRow = Math.min(best.columns, count - row * best.columns);
    const left = x + (width - inRow * best.width - (inRow - 1) * gap) / 2;
    rects.push({
      x: left + (index % best.columns) * (best.width + gap),
      y: top + row * (best.height + gap),
      width: best.width,
      height: best.height,
    });
  }
  return { columns: best.columns, rects };
}

/**
 * The largest tile in a cell.
 * @param {number} cellWidth
 * @param {number} cellHeight
 * @param {number} narrowest
 */
function fit(cellWidth, cellHeight, narrowest) {
  if (cellWidth <= 0 || cellHeight <= 0) return { width: 0, height: 0 };
  const width = Math.min(cellWidth, cellHeight * WIDEST);
  return { width, height: Math.min(cellHeight, width / narrowest) };
}

/**
 * One or more shared screens get the stage; everyone else a strip beside it, or below it on upright
 * screens.
 * @param {number} staged shared screens, at least 1
 * @param {number} others
 * @param {number} width
 * @param {number} height
 * @param {{ gap?: number }} [options]
 * @returns {{ stage: Rect[], strip: Rect[] }}
 */
export function stageLayout(staged, others, width, height, { gap = 10 } = {}) {
  if (others === 0) return { stage: stackLayout(staged, width, height, gap), strip: [] };
  const upright = height > width;
  const along = upright ? height : width;
  const least = Math.min(along * 0.34, Math.max(along * 0.2, 150));
  // Upright, a screen is seldom higher than 4:3: what it cannot use shows people.
  const share = upright ? Math.max(least, along - gap - (staged * width) / SCREEN_SHAPE) : least;
  const loose = upright ? gridLayout(others, width, share, { gap }) : gridLayout(others, share, height, { gap });
  const used = upright ? share : extent(loose.rects);
  const rest = along - used - gap;
  const strip = loose.rects.map((rect) =>
    upright ? { ...rect, y: rect.y + rest + gap } : { ...rect, x: rect.x - (share - used) / 2 + rest + gap },
  );
  const stage = upright ? stackLayout(staged, width, rest, gap) : stackLayout(staged, rest, height, gap);
  return { stage, strip };
}

/** How wide the rectangles are together. @param {Rect[]} rects */
function extent(rects) {
  const left = Math.min(...rects.map(({ x }) => x));
  const right = Math.max(...rects.map(({ x, width }) => x + width));
  return right - left;
}

/**
 * Shared screens fill the stage whatever their shape; the picture keeps its own inside.
 * @param {number} count
 * @param {number} width
 * @param {number} height
 * @param {number} gap
 * @returns {Rect[]}
 */
function stackLayout(count, width, height, gap) {
  const columns = width > height ? Math.ceil(Math.sqrt(count)) : Math.ceil(Math.sqrt(count) - 0.5);
  const rows = Math.ceil(count / columns);
  const cellWidth = (width - gap * (columns - 1)) / columns;
  const cellHeight = (height - gap * (rows - 1)) / rows;
  return Array.from({ length: count }, (_, index) => ({
    x: (index % columns) * (cellWidth + gap),
    y: Math.floor(index / columns) * (cellHeight + gap),
    width: cellWidth,
    height: cellHeight,
  }));
}
