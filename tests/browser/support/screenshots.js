/**
 * Pictures of the demo. They go to target/screenshots, or, with SWITCHYARD_TEST_SCREENSHOTS=docs, to docs/images, where
 * the README shows them; so an ordinary run leaves the tree as it was.
 */

import { mkdirSync, statSync } from 'node:fs';
import path from 'node:path';
import { ROOT } from './process.js';

const FOLDER = path.join(ROOT, process.env.SWITCHYARD_TEST_SCREENSHOTS === 'docs' ? 'docs/images' : 'target/screenshots');
const LARGEST = 400 * 1024;

/** @param {import('playwright-core').Page} page @param {string} name */
export async function screenshot(page, name) {
  mkdirSync(FOLDER, { recursive: true });
  const file = path.join(FOLDER, `${name}.png`);
  await page.screenshot({ path: file, animations: 'disabled' });
  const { size } = statSync(file);
  if (size > LARGEST) throw new Error(`${file} has ${size} bytes, more than ${LARGEST}`);
}
