//! The server's offer, which brings subscriptions, and the client's answer to it.

use std::time::Instant;

use common::message::{Answer, SubscribedTrack};
use common::model::TrackId;
use sfu::{IdMap, Session};

use super::lines::{Carried, Line, Sending, SourceTrack, Use};
use super::offer::{Host, rejected};
use super::{Effects, Endpoint};
use crate::media::MediaError;
use crate::media::codecs;
use crate::media::rtp::send::{AUDIO_MEMORY, Sender, VIDEO_MEMORY};
use crate::media::sdp::write::{self, Section};
use crate::media::sdp::{self, Media, Setup, parse};
use crate::media::transport::dtls::Role;

/// A server offer for the client.
pub struct Made {
    pub revision: u64,
    pub sdp: String,
    pub tracks: Vec<SubscribedTrack>,
}

impl Endpoint {
    /// Brings the m-lines in line with the tracks that are there, and offers that if it changes
    /// anything. `wanted` are the tracks of everyone else.
    pub fn make_offer(
        &mut self,
        now: Instant,
        wanted: &[SourceTrack],
        host: &Host<'_>,
        session: &mut Session,
    ) -> Option<Made> {
        if !self.assign(now, wanted, session) {
            self.negotiation.unwant_offer();
            return None;
        }
        let revision = self.negotiation.start_offer(now);
        self.tell_limit();
        let sections: Vec<Section<'_>> = self.lines.iter().map(Line::section).collect();
        let sdp = write::write(&self.session_level(host, Setup::ActPass), &sections);
        self.sdp_version += 1;
        let tracks = self.lines.iter().filter_map(Line::subscribed).collect();
        Some(Made { revision, sdp, tracks })
    }

    /// Whether anything changed that the client must know.
    fn assign(&mut self, now: Instant, wanted: &[SourceTrack], session: &mut Session) -> bool {
        self.declined.retain(|id| wanted.iter().any(|track| track.track_id == *id));
        let mut changed = false;
        for index in 0..self.lines.len() {
            let gone = self.lines[index].sending().is_some_and(|sending| {
                sending.carried.as_ref().is_some_and(|carried| {
                    !wanted.iter().any(|track| track.publication == carried.track.publication)
                })
            });
            if gone {
                self.drop_subscription(index, false, session);
            }
            changed |= self.lines[index]
                .sending()
                .is_some_and(|sending| sending.carried.is_none() && !sending.is_free);
        }
        if !self.can_subscribe {
            return changed;
        }
        for track in wanted {
            let carries = |line: &Line| {
                line.sending()
                    .and_then(|sending| sending.carried.as_ref())
                    .is_some_and(|carried| carried.track.publication == track.publication)
            };
            if self.declined.contains(&track.track_id) || self.lines.iter().any(carries) {
                continue;
            }
            let Some(index) = self.free_line(track) else { continue };
            let Some(subscription) = session.subscribe(track.publication) else { continue };
            let Some(sending) = self.lines[index].sending_mut() else { continue };
            sending.renumber();
            sending.is_free = false;
            // Its publisher need not send more than the least for a subscription that cannot flow yet.
            session.set_reach(now, subscription, 1);
            sending.carried =
                Some(Carried { track: track.clone(), subscription, sender: None, share: Box::default() });
            changed = true;
        }
        changed
    }

    /// An unused m-line of the right codec, or a new one. An m-line that this same offer takes out of
    /// use is not free yet: the client must first see it inactive.
    fn free_line(&mut self, track: &SourceTrack) -> Option<usize> {
        let is_free = |line: &Line| {
            line.sending().is_some_and(|sending| {
                sending.is_free && sending.carried.is_none() && sending.payload.codec == track.codec
            })
        };
        if let Some(index) = self.lines.iter().position(is_free) {
            return Some(index);
        }
        let payload = self.numbering.payload(track.codec)?;
        let extensions = self.numbering.extensions(track.codec);
        let mid = loop {
            let mid = format!("s{}", self.next_mid);
            self.next_mid += 1;
            if self.lines.iter().all(|line| line.mid != mid) {
                break mid;
            }
        };
        let sending = Sending::new(track.kind, payload, extensions);
        self.lines.push(Line { mid, use_: Use::Sending(sending) });
        Some(self.lines.len() - 1)
    }

    /// Applies the client's answer to the outstanding offer. Returns the tracks that it unpublishes.
    pub fn handle_answer(
        &mut self,
        now: Instant,
        answer: &Answer,
        host: &Host<'_>,
        session: &mut Session,
        effects: &mut Effects,
    ) -> Result<Vec<TrackId>, MediaError> {
        self.negotiation.check_answer(answer.revision)?;
        let description = parse::parse(&answer.sdp, sdp::MAX_CLIENT_MEDIA + self.lines.len())?;
        if description.media.len() != self.lines.len() {
            return Err(MediaError::InvalidSdp("the answer has not as many m-lines as the offer".into()));
        }
        self.check_order(&description.media)?;
        let same_mids = self.lines.iter().zip(&description.media).all(|(line, media)| line.mid == media.mid);
        if !same_mids {
            return Err(MediaError::InvalidSdp("the answer's mids are not the offer's".into()));
        }
        let role = if description.setup == Setup::Passive { Role::Client } else { Role::Server };
        let dtls = self.prepare_dtls(&description.fingerprint, role, host.identity)?;

        // Nothing below this line can fail.
        let mut unpublished = Vec::new();
        for (index, media) in description.media.iter().enumerate() {
            self.numbering.learn(media);
            match &self.lines[index].use_ {
                Use::Rejected { .. } => {}
                Use::Data { .. } if media.is_data() && !media.is_rejected => {}
                Use::Data { .. } => {
                    self.reject_data(now);
                    self.lines[index].use_ = rejected(media);
                }
                Use::Receiving(_) => {
                    if media.is_rejected || !media.direction.sends() {
                        unpublished.extend(self.unpublish(index, session));
                    }
                    if media.is_rejected {
                        self.lines[index].use_ = rejected(media);
                    }
                }
                Use::Sending(sending) => {
                    let knows = codecs::known(media).iter().any(|it| it.codec == sending.payload.codec);
                    if media.is_rejected || !knows {
                        effects
                            .refused
                            .extend(sending.carried.as_ref().map(|carried| carried.track.track_id));
                        self.drop_subscription(index, true, session);
                        self.lines[index].use_ = rejected(media);
                    } else {
                        self.accept_sending(now, index, media, session);
                    }
                }
            }
        }
        self.set_transport(now, description.credentials, description.fingerprint, dtls, effects);
        self.negotiation.complete_answer();
        self.activate(now, session);
        Ok(unpublished)
    }

    /// The client's view of one of the server's m-lines, from its answer or its own later offer.
    pub(super) fn accept_sending(
        &mut self,
        now: Instant,
        index: usize,
        media: &Media,
        session: &mut Session,
    ) {
        if !media.direction.receives() {
            self.drop_subscription(index, true, session);
        }
        let Some(sending) = self.lines[index].sending_mut() else { return };
        sending.is_free = sending.carried.is_none();
        let Some(payload) = codecs::known(media).into_iter().find(|it| it.codec == sending.payload.codec)
        else {
            return;
        };
        let extensions = codecs::extension_ids(media, payload.codec);
        self.bandwidth.learn(&extensions);
        let Some(carried) = &mut sending.carried else { return };
        if carried.sender.is_none() {
            let repair = sending.repair_ssrc.zip(payload.repair_type);
            let ids = IdMap::between(&carried.track.extensions, &extensions);
            let memory = if payload.codec.is_video() { VIDEO_MEMORY } else { AUDIO_MEMORY };
            carried.sender = Some(Sender::new(now, sending.ssrc, payload.payload_type, repair, ids, memory));
            self.senders.insert(sending.ssrc, index);
        }
    }

    /// Ends the subscription on an m-line. `declined`: the client does not want that track.
    pub(super) fn drop_subscription(&mut self, index: usize, declined: bool, session: &mut Session) {
        let Some(sending) = self.lines.get_mut(index).and_then(Line::sending_mut) else { return };
        self.senders.remove(&sending.ssrc);
        if let Some(carried) = sending.carried.take() {
            session.unsubscribe(carried.subscription);
            if declined {
                self.declined.insert(carried.track.track_id);
            }
        }
    }

    /// Starts every subscription that was accepted, once there are keys to send with.
    pub(super) fn activate(&mut self, now: Instant, session: &mut Session) {
        if !self.dtls.as_ref().is_some_and(|dtls| dtls.is_connected()) {
            return;
        }
        self.start_data(now);
        let accepted = self.lines.iter().filter_map(|line| {
            let sending = line.sending()?;
            let is_accepted = |carried: &Carried| carried.sender.is_some();
            let is_on = sending.slot.is_some() || sending.carried.as_ref().is_some_and(is_accepted);
            sending.subscription().filter(|_| is_on)
        });
        for subscription in accepted {
            session.activate(now, subscription);
        }
        self.allocation.want(now);
    }
}
