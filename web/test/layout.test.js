import assert from 'node:assert/strict';
import test from 'node:test';

import { gridLayout, stageLayout } from '../demo/layout.js';

const SIZES = [
  [1280, 640],
  [390, 700],
  [844, 390],
  [820, 1000],
  [3440, 1300],
  [320, 320],
];

function overlap(a, b) {
  const apart = 0.01;
  return (
    a.x + a.width > b.x + apart && b.x + b.width > a.x + apart && a.y + a.height > b.y + apart && b.y + b.height > a.y + apart
  );
}

function assertFits(rects, width, height, where) {
  for (const [index, rect] of rects.entries()) {
    assert.ok(rect.width > 0 && rect.height > 0, `${where}: tile ${index} has a size`);
    assert.ok(rect.x >= -0.01 && rect.y >= -0.01, `${where}: tile ${index} begins inside`);
    assert.ok(rect.x + rect.width <= width + 0.01, `${where}: tile ${index} ends inside (width)`);
    assert.ok(rect.y + rect.height <= height + 0.01, `${where}: tile ${index} ends inside (height)`);
    for (const other of rects.slice(index + 1)) assert.ok(!overlap(rect, other), `${where}: tiles overlap`);
  }
}

test('every tile is inside and none overlap, at any size and number', () => {
  for (const [width, height] of SIZES) {
    for (let count = 1; count <= 30; count += 1) {
      const { rects } = gridLayout(count, width, height);
      assert.equal(rects.length, count);
      assertFits(rects, width, height, `${count} in ${width}×${height}`);
    }
  }
});

test('no other number of columns would give larger tiles', () => {
  const gap = 10;
  for (let count = 1; count <= 20; count += 1) {
    const { rects } = gridLayout(count, 1280, 640, { gap });
    for (let columns = 1; columns <= count; columns += 1) {
      const rows = Math.ceil(count / columns);
      const width = Math.min((1280 - gap * (columns - 1)) / columns, (((640 - gap * (rows - 1)) / rows) * 16) / 9);
      assert.ok(rects[0].width >= width - 0.01, `${count} people, ${columns} columns`);
    }
  }
});

test('tiles are 16:9 on wide screens and become upright on a phone', () => {
  const wide = gridLayout(3, 1280, 640).rects[0];
  assert.ok(Math.abs(wide.width / wide.height - 16 / 9) < 0.001);
  const phone = gridLayout(2, 390, 700).rects[0];
  assert.ok(phone.width / phone.height < 16 / 9 - 0.1, 'taller than 16:9');
  assert.equal(phone.width, 390);
});

test('an incomplete last row is centred', () => {
  const { columns, rects } = gridLayout(3, 1280, 640);
  assert.equal(columns, 2);
  const last = rects[2];
  assert.ok(Math.abs(last.x + last.width / 2 - 640) < 0.01);
});

test('nothing to show, or no room to show it, is no error', () => {
  assert.deepEqual(gridLayout(0, 100, 100).rects, []);
  assert.deepEqual(gridLayout(3, 0, 100).rects, []);
  assert.deepEqual(gridLayout(3, 100, -5).rects, []);
});

test('a shared screen gets most of the room, and everyone else stays visible', () => {
  for (const [width, height] of SIZES) {
    for (const others of [0, 1, 3, 8, 20]) {
      const { stage, strip } = stageLayout(1, others, width, height);
      assert.equal(stage.length, 1);
      assert.equal(strip.length, others);
      assertFits([...stage, ...strip], width, height, `1 screen and ${others} in ${width}×${height}`);
      for (const tile of strip) {
        assert.ok(stage[0].width * stage[0].height > tile.width * tile.height, 'the stage is the largest');
      }
    }
  }
});

test('two shared screens share the stage', () => {
  const { stage, strip } = stageLayout(2, 4, 1280, 640);
  assert.equal(stage.length, 2);
  assertFits([...stage, ...strip], 1280, 640, 'two screens');
});
