/** The room: what the SDK tells, drawn; what the person does, passed on. */

import { Banner } from './banner.js';
import { Chat, labelOf } from './chat.js';
import { Controls } from './controls.js';
import { Publication } from '../sdk/switchyard.js';
import { byId } from './dom.js';
import { Grid } from './grid.js';
import { Sound } from './sound.js';
import { StatsOverlay } from './stats-overlay.js';
import { Tile } from './tile.js';
import { clearToasts, toast } from './toasts.js';

/** @typedef {import('../sdk/switchyard.js').RemoteParticipant} RemoteParticipant */
/** @typedef {import('../sdk/switchyard.js').LocalParticipant} LocalParticipant */

/** People who come into a big room are not announced one by one. */
const ANNOUNCE_UP_TO = 8;

export class RoomView {
  #room;
  #devices;
  #entrance;
  #grid;
  #sound;
  #stats;
  #banner;
  #controls;
  #chat;
  #ended;
  /** Where each picture is shown, and what ends watching that. @type {Map<object, { element: Element, stop: () => void }>} */
  #watched = new Map();

  /**
   * @param {import('../sdk/switchyard.js').Room} room
   * @param {import('./devices.js').Devices} devices
   * @param {import('./link-source.js').Entrance} entrance
   * @param {(reason: string) => void} ended the room is over for us
   */
  constructor(room, devices, entrance, ended) {
    this.#room = room;
    this.#devices = devices;
    this.#entrance = entrance;
    this.#ended = ended;
    byId('room-name', HTMLElement).textContent = entrance.title;
    this.#grid = new Grid(byId('tiles', HTMLElement));
    this.#sound = new Sound(() => toast('Click anywhere to hear the others.'));
    this.#stats = new StatsOverlay(room, this.#grid);
    this.#banner = new Banner(() => room.reconnect());
    this.#chat = new Chat(room, () => this.#controls?.refresh());
    this.#controls = new Controls(this.#actions(), (error) => this.#failed(error));
    this.#listen();
    this.#refresh(room.localParticipant);
    for (const participant of room.participants.values()) {
      this.#refresh(participant);
      for (const publication of participant.tracks.values()) this.#playIfAudio(publication);
    }
    this.#banner.show(room.connectionState);
    this.#count();
  }

  #listen() {
    const room = this.#room;
    const redraw = (/** @type {RemoteParticipant | LocalParticipant} */ participant) => this.#refresh(participant);
    room.on('participantJoined', (participant) => {
      redraw(participant);
      this.#count();
      this.#chat.refreshPeople();
      if (room.participants.size <= ANNOUNCE_UP_TO) toast(`${participant.name || 'Guest'} joined`);
    });
    room.on('participantLeft', (participant) => {
      this.#grid.remove(participant.id);
      this.#grid.remove(`${participant.id}/screen`);
      this.#count();
      this.#chat.refreshPeople();
      if (room.participants.size < ANNOUNCE_UP_TO) toast(`${participant.name || 'Guest'} left`);
    });
    room.on('participantUpdated', (participant) => {
      redraw(participant);
      this.#chat.refreshPeople();
    });
    room.on('trackPublished', (_, participant) => redraw(participant));
    room.on('trackUnpublished', (publication, participant) => {
      this.#unwatch(publication);
      redraw(participant);
    });
    room.on('trackRefused', (_, participant) => redraw(participant));
    room.on('videoSuspended', (_, participant) => redraw(participant));
    room.on('videoResumed', (_, participant) => redraw(participant));
    room.on('videoHeld', (_, participant) => redraw(participant));
    room.on('videoReleased', (_, participant) => redraw(participant));
    room.on('trackSubscribed', (_, publication, participant) => {
      this.#playIfAudio(publication);
      redraw(participant);
    });
    room.on('trackUnsubscribed', (_, publication, participant) => {
      this.#sound.stop(publication);
      redraw(participant);
    });
    // The same media by another connection: nobody is to see or hear the seam.
    room.on('trackSwitched', (track, publication, participant) => {
      if (publication.kind === 'audio') this.#sound.switchTo(publication, track);
      redraw(participant);
    });
    room.on('trackMuted', (_, participant) => redraw(participant));
    room.on('trackUnmuted', (_, participant) => redraw(participant));
    for (const name of /** @type {const} */ (['localTrackPublished', 'localTrackUnpublished', 'localTrackReplaced'])) {
      room.on(name, () => this.#refresh(room.localParticipant));
    }
    room.on('localTrackEnded', (publication) => this.#deviceLost(publication));
    room.on('activeSpeakers', () => this.#drawSpeakers());
    room.on('qualityChanged', redraw);
    room.on('connectionState', (state) => {
      this.#banner.show(state);
      byId('tiles', HTMLElement).dataset.state = state;
      if (state === 'connected') this.#refresh(room.localParticipant);
      // What was held while there was hope.
      if (state === 'disconnected') for (const participant of room.participants.values()) redraw(participant);
    });
    room.on('interrupted', (cause) => this.#banner.explain(cause));
    room.on('disconnected', (error) => this.#banner.fail(error.code));
    room.on('closed', (reason) => this.#close(reason));
  }

  /** @param {RemoteParticipant | LocalParticipant} participant */
  #refresh(participant) {
    const key = participant.isLocal ? 'self' : participant.id;
    const microphone = participant.trackBySource('microphone');
    const camera = participant.trackBySource('camera');
    const tile = this.#tile(key, participant, 'camera');
    tile.update(participant);
    tile.setMuted(!microphone || microphone.muted);
    this.#show(tile, camera);
    tile.setSpeaking(participant.speaking);

    const screen = participant.trackBySource('screen');
    const screenKey = `${key}/screen`;
    if (screen) {
      const stage = this.#tile(screenKey, participant, 'screen');
      stage.update(participant);
      this.#show(stage, screen);
    } else {
      this.#grid.remove(screenKey);
    }
    if (participant.isLocal) this.#controls.refresh();
  }

  /**
   * The picture of a publication. While it is being fetched anew the last one stays.
   * @param {Tile} tile
   * @param {import('../sdk/switchyard.js').Publication | import('../sdk/switchyard.js').LocalPublication | undefined} publication
   */
  #show(tile, publication) {
    if (!publication || publication.muted) tile.setVideo(null);
    else tile.setVideo(publication.track, { hold: this.#room.connectionState !== 'disconnected' });
    const remote = publication instanceof Publication ? publication : null;
    tile.setMissing(remote && !remote.muted ? missing(remote) : null);
    if (remote) this.#watch(remote, tile.element);
  }

  /** No more of a picture comes than its tile can show. @param {Publication} publication @param {Element} element */
  #watch(publication, element) {
    if (this.#watched.get(publication)?.element === element) return;
    this.#unwatch(publication);
    this.#watched.set(publication, { element, stop: this.#room.observe(publication, element) });
  }

  /** @param {object} publication */
  #unwatch(publication) {
    this.#watched.get(publication)?.stop();
    this.#watched.delete(publication);
  }

  /**
   * @param {string} key
   * @param {RemoteParticipant | LocalParticipant} participant
   * @param {'camera' | 'screen'} source
   */
  #tile(key, participant, source) {
    const known = this.#grid.get(key);
    if (known) return known;
    const tile = new Tile(participant, source);
    this.#grid.add(key, tile);
    return tile;
  }

  /** @param {import('../sdk/switchyard.js').Publication} publication */
  #playIfAudio(publication) {
    if (publication.kind === 'audio' && publication.track) this.#sound.play(publication, publication.track);
  }

  #drawSpeakers() {
    const room = this.#room;
    this.#grid.get('self')?.setSpeaking(room.localParticipant.speaking);
    for (const participant of room.participants.values()) {
      this.#grid.get(participant.id)?.setSpeaking(participant.speaking);
    }
  }

  #count() {
    const present = this.#room.participants.size + 1;
    const count = byId('count', HTMLElement);
    count.textContent = String(present);
    count.title = present === 1 ? 'Only you are here' : `${present} people are here`;
    count.setAttribute('aria-label', count.title);
    document.title = `${this.#entrance.title} (${present}) · Switchyard`;
  }

  // ---- what the person does ----

  /** @returns {import('./controls.js').Control[]} */
  #actions() {
    const local = this.#room.localParticipant;
    const on = (/** @type {import('../sdk/types.js').TrackSource} */ source) => {
      const publication = local.trackBySource(source);
      return publication !== undefined && !publication.muted;
    };
    const canShare = Boolean(navigator.mediaDevices?.getDisplayMedia);
    return [
      {
        id: 'mic',
        key: 'm',
        look: () => (on('microphone') ? look('Mute', 'mic', true) : { ...look('Unmute', 'mic-off', false), off: true }),
        act: () => this.#toggleMicrophone(),
      },
      {
        id: 'camera',
        key: 'v',
        look: () =>
          on('camera') ? look('Stop video', 'camera', true) : { ...look('Start video', 'camera-off', false), off: true },
        act: () => this.#toggleCamera(),
      },
      {
        id: 'share',
        key: 's',
        look: () => ({
          ...(on('screen') ? look('Stop sharing', 'share-off', true) : look('Share screen', 'share', false)),
          disabled: !canShare,
        }),
        act: async () => {
          if (on('screen')) await local.stopScreenShare();
          else await local.startScreenShare();
        },
      },
      {
        id: 'chat-toggle',
        key: 't',
        look: () => {
          const { unread, shown } = this.#chat;
          return { ...look('Chat', 'chat', shown), badge: unread === 0 ? '' : String(Math.min(unread, 99)), spoken: labelOf(unread) };
        },
        act: () => this.#chat.toggle(),
      },
      { id: 'stats', key: 'i', look: () => look('Stats', 'stats', this.#stats.shown), act: () => this.#stats.toggle() },
      { id: 'copy-link', key: 'c', look: () => ({ label: 'Copy link', icon: 'link' }), act: () => this.#copyLink() },
      { id: 'leave', key: 'l', look: () => ({ label: 'Leave', icon: 'leave' }), act: () => this.#room.leave() },
    ];
  }

  async #toggleMicrophone() {
    const local = this.#room.localParticipant;
    const publication = local.trackBySource('microphone');
    if (publication) {
      await local.setMuted(publication, !publication.muted);
      return;
    }
    const track = await this.#devices.open('audio');
    if (track) await local.publish(track, { source: 'microphone' });
    else toast(this.#devices.problems.audio, { tone: 'bad' });
  }

  /** Off means off: the camera is let go of, so that its light goes out. */
  async #toggleCamera() {
    const local = this.#room.localParticipant;
    const publication = local.trackBySource('camera');
    if (publication && !publication.muted) {
      const told = local.setMuted(publication, true);
      this.#devices.close('video');
      await told;
      return;
    }
    const track = await this.#devices.open('video');
    if (!track) {
      toast(this.#devices.problems.video, { tone: 'bad' });
    } else if (publication) {
      await local.replaceTrack(publication, track);
      await local.setMuted(publication, false);
    } else {
      await local.publish(track, { source: 'camera' });
    }
  }

  async #copyLink() {
    const { share } = this.#entrance;
    if (share === null) {
      toast('Your link is yours alone. Ask the host for another one to pass on.');
      return;
    }
    try {
      await navigator.clipboard.writeText(share);
      toast('Link copied');
    } catch {
      toast(`The link to this room: ${share}`); // no clipboard on insecure pages
    }
  }

  /** @param {import('../sdk/switchyard.js').LocalPublication} publication */
  async #deviceLost(publication) {
    if (publication.source !== 'camera' && publication.source !== 'microphone') return;
    toast(`Your ${publication.source} was disconnected.`, { tone: 'bad' });
    this.#devices.close(publication.kind);
    await this.#room.localParticipant.unpublish(publication).catch(() => {});
  }

  /** @param {unknown} error */
  #failed(error) {
    if (error instanceof DOMException && error.name === 'NotAllowedError') return; // cancelled by the person
    toast(error instanceof Error ? error.message : 'That did not work.', { tone: 'bad' });
  }

  /** @param {string} reason */
  #close(reason) {
    this.#stats.hide();
    this.#banner.hide();
    clearToasts();
    this.#controls.remove();
    this.#chat.remove();
    this.#sound.stopAll();
    for (const publication of [...this.#watched.keys()]) this.#unwatch(publication);
    this.#grid.clear();
    document.title = 'Switchyard';
    for (const publication of this.#room.localParticipant.tracks.values()) publication.track.stop();
    this.#devices.closeAll();
    this.#ended(reason);
  }
}

/** @param {string} label @param {string} iconName @param {boolean} pressed */
function look(label, iconName, pressed) {
  return { label, icon: iconName, pressed };
}

/** Why nothing is seen of it, if that is so. @param {Publication} publication */
function missing({ refused, suspended, held }) {
  if (refused) return `Your browser cannot play this video (${refused.replace('video/', '')})`;
  if (held) return 'Shown when they speak';
  return suspended ? 'Your connection is too slow for this video' : null;
}
