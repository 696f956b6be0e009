/**
 * Links between a hub, where the server and people with good connections are, and guests with connections of their own: network
 * namespaces with a rate, a queue and losses. The process must be alone in a network of its own (tests/lib/isolated.sh).
 */

import { execFileSync } from 'node:child_process';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

const HUB = '10.99.0.1';
/** The hub's address in the network of IPv6. */
const HUB6 = 'fd99::1';
/** Of the second interface of guests that have two. */
const SECOND = '10.98.0';
/** The queue of a link that is full, milliseconds. */
const QUEUE_MS = 300;

/** @param {string} command @param {string} [input] */
export function run(command, input) {
  const [file, ...args] = command.split(' ');
  return execFileSync(file, args, { input, encoding: 'utf8', stdio: ['pipe', 'pipe', 'inherit'] });
}

/**
 * An IPv6 address comes a second or two after its link, and Chromium breaks off what it is loading when an address comes
 * (ERR_NETWORK_CHANGED).
 */
function withoutIpv6() {
  for (const which of ['all', 'default']) writeFileSync(`/proc/sys/net/ipv6/conf/${which}/disable_ipv6`, '1');
}

export class Network {
  address = HUB;
  address6 = HUB6;
  #guests = 0;
  #folder = mkdtempSync(path.join(tmpdir(), 'network-'));

  constructor() {
    withoutIpv6();
    run('ip link add hub type bridge');
    run(`ip address add ${HUB}/24 dev hub`);
    run('ip link set hub up');
  }

  /** @param {string} name */
  guest(name) {
    this.#guests += 1;
    return new Guest(name, this.#guests, this.#folder);
  }

  /** Somebody else there. */
  another() {
    this.#guests += 1;
    const address = `10.99.0.${this.#guests + 1}`;
    run(`ip address add ${address}/24 dev hub`);
    return address;
  }

  /** Gives the hub an address of IPv6 too. Guests have none until they are told. */
  speakIpv6() {
    writeFileSync('/proc/sys/net/ipv6/conf/hub/disable_ipv6', '0');
    writeFileSync('/proc/sys/net/ipv6/conf/lo/disable_ipv6', '0');
    run(`ip address add ${HUB6}/64 dev hub nodad`);
  }

  close() {
    rmSync(this.#folder, { recursive: true });
  }
}

export class Guest {
  #name;
  /** The hub's end of its link: what it sends is what the guest receives. */
  #link;
  #number;
  /** What starts Chromium there. */
  chromium;

  /** @param {string} name @param {number} number @param {string} folder */
  constructor(name, number, folder) {
    this.#name = name;
    this.#number = number;
    this.#link = `to-${name}`;
    run(`ip netns add ${name}`);
    for (const which of ['all', 'default']) this.inside(`sysctl -qw net.ipv6.conf.${which}.disable_ipv6=1`);
    run(`ip link add ${this.#link} type veth peer name wan netns ${name}`);
    run(`ip link set ${this.#link} master hub up`);
    this.inside(`ip address add 10.99.0.${number + 1}/24 dev wan`);
    this.inside('ip link set dev wan up');
    this.inside('ip link set lo up');
    this.chromium = path.join(folder, name);
    const chromium = process.env.CHROMIUM ?? '/usr/bin/chromium';
    writeFileSync(this.chromium, `#!/bin/sh\nexec ip netns exec ${name} ${chromium} "$@"\n`);
    chmodSync(this.chromium, 0o755);
  }

  /** @param {string} command @param {string} [input] */
  inside(command, input) {
    return run(`ip netns exec ${this.#name} ${command}`, input);
  }

  /** Nothing of UDP leaves or arrives, as in many a company. */
  blockUdp() {
    const chain = (/** @type {string} */ hook) => `chain ${hook} { type filter hook ${hook} priority 0; meta l4proto udp drop\n }`;
    this.inside('nft -f -', `table inet blocked {\n ${chain('input')}\n ${chain('output')}\n }\n`);
  }

  /** Has an address of IPv6 and none of IPv4. */
  becomeIpv6() {
    // Nothing but that address: one more that comes later would be a change of the network.
    this.inside('sysctl -qw net.ipv6.conf.wan.addr_gen_mode=1');
    this.inside('sysctl -qw net.ipv6.conf.wan.disable_ipv6=0');
    this.inside(`ip address add fd99::${this.#number + 1}/64 dev wan nodad`);
    this.inside('ip -4 address flush dev wan');
  }

  /** Another address in place of the one it had, as when somebody leaves the house. */
  move() {
    this.inside('ip -4 address flush dev wan');
    this.inside(`ip address add ${this.movedTo}/24 dev wan`);
  }

  get address() {
    return `10.99.0.${this.#number + 1}`;
  }

  get movedTo() {
    return `10.99.0.${this.#number + 101}`;
  }

  /** A second way to the hub, of which the server sees another address. */
  addInterface() {
    run(`ip address replace ${SECOND}.1/24 dev hub`);
    run(`ip link add ${this.#link}-2 type veth peer name wan2 netns ${this.#name}`);
    run(`ip link set ${this.#link}-2 master hub up`);
    const address = `${SECOND}.${this.#number + 1}`;
    this.inside(`ip address add ${address}/24 dev wan2`);
    this.inside('ip link set dev wan2 up');
    // Each address leaves by its own interface, and what is bound to none by the first one that is up.
    this.inside(`ip route add default via ${SECOND}.1 dev wan2 table 98`);
    this.inside(`ip rule add from ${address} table 98`);
    this.inside(`ip route add default via ${SECOND}.1 dev wan2 metric 1000`);
    return { first: this.address, second: address };
  }

  /** The link of the first interface is cut, and with it goes its address, as systems do it. */
  cutFirst() {
    this.inside('ip -4 address flush dev wan');
    this.inside('ip link set dev wan down');
  }

  /** No more than so many kbit/s reach it; null: as much as there is. @param {number | null} kbps */
  limit(kbps) {
    if (kbps === null) run(`tc qdisc del dev ${this.#link} root`);
    else run(`tc qdisc replace dev ${this.#link} root tbf rate ${kbps}kbit burst 4kb latency ${QUEUE_MS}ms`);
  }

  /** Of each hundred datagrams that come, so many are lost, whichever. @param {number} percent */
  lose(percent) {
    const rule = `meta l4proto udp numgen random mod 1000 < ${Math.round(10 * percent)} drop`;
    this.inside('nft -f -', `table inet loss {\n  chain in {\n    type filter hook input priority 0;\n    ${rule}\n  }\n}\n`);
  }

  /** Bytes that were sent to it so far. */
  received() {
    const [link] = JSON.parse(run(`ip -json -statistics link show dev ${this.#link}`));
    return /** @type {number} */ (link.stats64.tx.bytes);
  }
}
