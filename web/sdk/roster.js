/**
 * Who is there and what they publish, from the join reply and the events after it; and which of that is
 * subscribed, from the server's offers. The two come by different ways and in either order.
 *
 * Everything may come twice or late (events are delivered at least once and may be older than the
 * snapshot in a join reply), so every change is "make it so", never "flip it".
 */

import { RemoteParticipant } from './participant.js';
import { Publication } from './publication.js';

/**
 * @typedef {object} RosterEvents
 * @property {(participant: RemoteParticipant) => void} participantJoined
 * @property {(participant: RemoteParticipant, reason: import('./types.js').LeaveReason) => void} participantLeft
 * @property {(participant: RemoteParticipant) => void} participantUpdated name or state changed
 * @property {(publication: Publication, participant: RemoteParticipant) => void} trackPublished
 * @property {(publication: Publication, participant: RemoteParticipant) => void} trackUnpublished
 * @property {(track: MediaStreamTrack, publication: Publication, participant: RemoteParticipant) => void} trackSubscribed
 * @property {(track: MediaStreamTrack, publication: Publication, participant: RemoteParticipant) => void} trackUnsubscribed
 * @property {(publication: Publication, participant: RemoteParticipant) => void} trackMuted
 * @property {(publication: Publication, participant: RemoteParticipant) => void} trackUnmuted
 */

export class Roster {
  /** @type {Map<string, RemoteParticipant>} */
  participants = new Map();
  /** By track id: what the server sends us, and on which m-line. */
  /** @type {Map<string, { mid: string, track: MediaStreamTrack }>} */
  #subscribed = new Map();
  #events;

  /** @param {RosterEvents} events */
  constructor(events) {
    this.#events = events;
  }

  /**
   * An event about someone else. Types that are unknown are a newer server's.
   * @param {string} type
   * @param {any} data
   */
  handle(type, data) {
    const id = data?.participant_id;
    if (type === 'participant.joined') this.joined(data.participant);
    else if (type === 'participant.left') this.left(id, data.reason);
    else if (type === 'participant.disconnected') this.disconnected(id);
    else if (type === 'track.published') this.published(id, data.track);
    else if (type === 'track.unpublished') this.unpublished(id, data.track_id);
    else if (type === 'track.muted') this.muted(id, data.track_id, true);
    else if (type === 'track.unmuted') this.muted(id, data.track_id, false);
  }

  /**
   * The snapshot of a join reply: everyone else, and nobody who is not in it.
   * @param {import('./types.js').ParticipantInfo[]} others
   */
  replace(others) {
    const present = new Set(others.map((info) => info.id));
    for (const id of [...this.participants.keys()]) if (!present.has(id)) this.left(id, 'left');
    for (const info of others) this.joined(info);
  }

  /** @param {import('./types.js').ParticipantInfo} info */
  joined(info) {
    let participant = this.participants.get(info.id);
    if (participant) {
      participant.name = info.name;
      participant.state = info.state;
      const kept = new Set(info.tracks.map((track) => track.id));
      for (const id of [...participant.tracks.keys()]) if (!kept.has(id)) this.unpublished(info.id, id);
      this.#events.participantUpdated(participant);
    } else {
      participant = new RemoteParticipant(info);
      this.participants.set(info.id, participant);
      this.#events.participantJoined(participant);
    }
    for (const track of info.tracks) this.published(info.id, track);
  }

  /** @param {string} id @param {import('./types.js').LeaveReason} reason */
  left(id, reason) {
    const participant = this.participants.get(id);
    if (!participant) return;
    for (const trackId of [...participant.tracks.keys()]) this.unpublished(id, trackId);
    this.participants.delete(id);
    this.#events.participantLeft(participant, reason);
  }

  /** @param {string} id */
  disconnected(id) {
    const participant = this.participants.get(id);
    if (!participant || participant.state === 'disconnected') return;
    participant.state = 'disconnected';
    this.#events.participantUpdated(participant);
  }

  /** @param {string} participantId @param {import('./types.js').TrackInfo} info */
  published(participantId, info) {
    const participant = this.participants.get(participantId);
    if (!participant) return;
    if (participant.tracks.has(info.id)) {
      this.muted(participantId, info.id, info.muted);
      return;
    }
    const publication = new Publication(info.id, info.kind, info.source, info.muted);
    participant.tracks.set(info.id, publication);
    this.#events.trackPublished(publication, participant);
    this.#attach(publication, participant);
  }

  /** @param {string} participantId @param {string} trackId */
  unpublished(participantId, trackId) {
    const participant = this.participants.get(participantId);
    const publication = participant?.tracks.get(trackId);
    if (!participant || !publication) return;
    this.#detach(publication, participant);
    participant.tracks.delete(trackId);
    this.#events.trackUnpublished(publication, participant);
  }

  /** @param {string} participantId @param {string} trackId @param {boolean} muted */
  muted(participantId, trackId, muted) {
    const participant = this.participants.get(participantId);
    const publication = participant?.tracks.get(trackId);
    if (!participant || !publication || publication.muted === muted) return;
    publication.muted = muted;
    if (muted) this.#events.trackMuted(publication, participant);
    else this.#events.trackUnmuted(publication, participant);
  }

  /**
   * A server offer was applied: this is all that is subscribed now. A track that moved to another
   * m-line, or an m-line that carries another track, counts as unsubscribed and subscribed anew.
   * @param {import('./types.js').SubscribedTrack[]} tracks
   * @param {(mid: string) => MediaStreamTrack | null} trackByMid
   */
  subscribed(tracks, trackByMid) {
    const before = this.#subscribed;
    this.#subscribed = new Map();
    for (const { track_id: id, mid } of tracks) {
      const track = trackByMid(mid);
      if (track) this.#subscribed.set(id, { mid, track });
    }
    for (const participant of this.participants.values()) {
      for (const publication of participant.tracks.values()) {
        const now = this.#subscribed.get(publication.id);
        if (before.has(publication.id) && now?.track !== publication.track) this.#detach(publication, participant);
      }
    }
    for (const participant of this.participants.values()) {
      for (const publication of participant.tracks.values()) this.#attach(publication, participant);
    }
  }

  /** The connection is gone, and with it every subscription. */
  unsubscribeAll() {
    this.subscribed([], () => null);
  }

  /** By the m-line that carries it. @param {string} mid */
  byMid(mid) {
    for (const participant of this.participants.values()) {
      for (const publication of participant.tracks.values()) {
        if (publication.mid === mid) return { participant, publication };
      }
    }
    return null;
  }

  /** @param {Publication} publication @param {RemoteParticipant} participant */
  #attach(publication, participant) {
    const subscription = this.#subscribed.get(publication.id);
    if (!subscription || publication.track) return;
    publication.track = subscription.track;
    publication.mid = subscription.mid;
    this.#events.trackSubscribed(subscription.track, publication, participant);
  }

  /** @param {Publication} publication @param {RemoteParticipant} participant */
  #detach(publication, participant) {
    const { track } = publication;
    if (!track) return;
    publication.track = null;
    publication.mid = null;
    this.#events.trackUnsubscribed(track, publication, participant);
  }
}
