/** RabbitMQ and the MongoDB-wire server of one test's own, which it may break (tests/support/src/bin/own_services.rs). */

import { eventually } from './eventually.js';
import { ownServices, Process } from './process.js';

export class OwnServices {
  #process = new Process('own-services', ownServices(), []);
  #commands = 0;
  /** @type {{ broker: string, store: string }} */
  location = { broker: '', store: '' };

  static async start() {
    const services = new OwnServices();
    services.location = JSON.parse(`{${await services.#process.line('{')}`);
    return services;
  }

  /** @param {'kill' | 'stop' | 'start'} how @param {'broker' | 'store' | 'both'} name */
  async change(how, name) {
    this.#commands += 1;
    this.#process.child.stdin.write(`${how} ${name}\n`);
    const done = () => this.#process.lines.filter((line) => line === 'done').length;
    await eventually(`${how} ${name}`, async () => done() === this.#commands, 90);
  }

  /** Both end with it. */
  async stop() {
    this.#process.child.stdin.end();
    await this.#process.exited;
  }
}
