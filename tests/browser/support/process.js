/** Processes of the real binary, and of the polling client. */

import { spawn } from 'node:child_process';
import { createWriteStream, existsSync, mkdirSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

export const ROOT = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../../..');
const LOGS = path.join(ROOT, 'target/test-logs');

let started = 0;

/** What was built, unless the environment says otherwise. @param {string} variable @param {string} name */
function executable(variable, name) {
  const file = process.env[variable] ?? path.join(ROOT, 'target/debug', name);
  if (!existsSync(file)) throw new Error(`${file} is not built: run tests/run browser, or set ${variable}`);
  return file;
}

export const binary = () => executable('SWITCHYARD_BIN', 'switchyard');
export const ownServices = () => executable('SWITCHYARD_OWN_SERVICES', 'own-services');
export const pollingClient = () => executable('SWITCHYARD_POLLING_CLIENT', 'polling-client');

export class Process {
  /** Lines of stdout so far. @type {string[]} */
  lines = [];
  /** @type {Set<() => void>} */
  #waiting = new Set();

  /**
   * @param {string} name for its log
   * @param {string} file
   * @param {string[]} args
   * @param {Record<string, string>} environment added to ours, without our SWITCHYARD_ settings
   */
  constructor(name, file, args, environment = {}) {
    mkdirSync(LOGS, { recursive: true });
    started += 1;
    this.name = `browser-${process.pid}-${started}-${name}`;
    this.log = path.join(LOGS, `${this.name}.log`);
    const clean = Object.fromEntries(Object.entries(process.env).filter(([key]) => !key.startsWith('SWITCHYARD_')));
    const log = createWriteStream(this.log);
    this.child = spawn(file, args, { env: { ...clean, ...environment }, stdio: ['pipe', 'pipe', 'pipe'] });
    this.child.stderr.pipe(log, { end: false });
    this.child.stdout.pipe(log, { end: false });
    let rest = '';
    this.child.stdout.setEncoding('utf8').on('data', (chunk) => {
      const lines = (rest + chunk).split('\n');
      rest = lines.pop() ?? '';
      this.lines.push(...lines);
      for (const wake of this.#waiting) wake();
    });
    this.exited = new Promise((resolve) => {
      this.child.on('exit', (code, signal) => {
        this.ended = `${code ?? signal}`;
        for (const wake of this.#waiting) wake();
        resolve(this.ended);
      });
    });
    this.child.stdin.on('error', () => {}); // it ended first
  }

  /**
   * The rest of the first line that starts so.
   * @param {string} prefix
   * @returns {Promise<string>}
   */
  async line(prefix) {
    const deadline = Date.now() + 30_000;
    for (;;) {
      const found = this.lines.find((line) => line.startsWith(prefix));
      if (found !== undefined) return found.slice(prefix.length);
      if (this.ended !== undefined) throw new Error(`${this.name} ended (${this.ended}); see ${this.log}`);
      const left = deadline - Date.now();
      if (left <= 0) throw new Error(`${this.name} never said "${prefix}"; see ${this.log}`);
      await new Promise((resolve) => {
        const wake = () => {
          clearTimeout(timer);
          this.#waiting.delete(wake);
          resolve(undefined);
        };
        const timer = setTimeout(wake, left);
        this.#waiting.add(wake);
      });
    }
  }

  /** Ends it as a crash would: nothing is said, nothing is handed over. Gives the moment, in Unix milliseconds. */
  async crash() {
    const at = Date.now();
    this.child.kill('SIGKILL');
    await this.exited;
    return at;
  }

  /** Asks it to end; gives its exit code once it has. @param {number} seconds */
  async drain(seconds) {
    this.child.kill('SIGTERM');
    let timer;
    const late = new Promise((_, reject) => {
      timer = setTimeout(() => reject(new Error(`${this.name} did not end within ${seconds} s; see ${this.log}`)), seconds * 1000);
    });
    try {
      return await Promise.race([this.exited, late]);
    } finally {
      clearTimeout(timer);
    }
  }

  async stop() {
    if (this.ended !== undefined) return;
    this.child.kill('SIGTERM');
    const timer = setTimeout(() => this.child.kill('SIGKILL'), 10_000);
    await this.exited;
    clearTimeout(timer);
  }
}
