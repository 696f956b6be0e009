/** Debian's coturn as a process of its own, with a secret that it shares with the deployment. */

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

import { eventually } from './eventually.js';
import { Process } from './process.js';

export class Turn {
  #folder = mkdtempSync(path.join(tmpdir(), 'turn-'));
  #process;

  /** @param {string} address @param {string} secret @param {number} [port] */
  constructor(address, secret, port = 3478) {
    this.address = `${address}:${port}`;
    this.#process = new Process('coturn', process.env.SWITCHYARD_TEST_TURNSERVER ?? '/usr/bin/turnserver', [
      '-n', '--no-cli', '--no-tls', '--no-dtls', '--fingerprint', '--verbose',
      '--listening-ip', address, '--relay-ip', address, '--listening-port', `${port}`, '--realm', 'switchyard.test',
      '--use-auth-secret', '--static-auth-secret', secret,
      '--userdb', path.join(this.#folder, 'users'), '--pidfile', path.join(this.#folder, 'pid'), '--log-file', 'stdout',
    ]);
  }

  async ready() {
    await eventually('coturn listens', async () => {
      if (this.#process.ended !== undefined) throw new Error(`it ended (${this.#process.ended}); see ${this.#process.log}`);
      return this.#process.lines.some((line) => line.includes('IPv4. UDP listener opened on'));
    });
    return this;
  }

  async stop() {
    await this.#process.stop();
    rmSync(this.#folder, { recursive: true });
  }
}
