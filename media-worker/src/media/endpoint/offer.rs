//! A client's offer: parsed and planned completely before anything changes, so that a refused offer
//! leaves the endpoint as it was.

use std::collections::HashSet;
use std::time::Instant;

use common::message::{Answer, Offer, TrackDescription};
use common::model::{Track, TrackId, TrackKind, TrackSource};
use sfu::{Extension, ExtensionIds, Session};

use super::lines::{Line, Published, Receiving, Sending, Use, kind_name};
use super::slots;
use super::{Effects, Endpoint};
use crate::media::codecs::{self, Payload};
use crate::media::data;
use crate::media::encodings::Encodings;
use crate::media::sdp::write::{self, Section};
use crate::media::sdp::{self, Media, Setup, parse};
use crate::media::transport::dtls::{Identity, Role};
use crate::media::{MediaError, Negotiated};

/// Tracks that one endpoint may publish.
pub const MAX_TRACKS: usize = 16;

/// What is shared by all descriptions of a worker.
pub struct Host<'a> {
    pub identity: &'a Identity,
    /// The server's candidates.
    pub candidates: &'a [String],
}

/// What an offer makes of one m-line.
enum Plan {
    Reject,
    /// The client's data channels.
    Data {
        max_message: usize,
    },
    /// The server's own m-line, unchanged or stopped by the client.
    Sending {
        stop: bool,
    },
    /// The client's own m-line, on which it receives one track after another.
    Slot {
        kind: TrackKind,
        payloads: Vec<(Payload, ExtensionIds)>,
    },
    Receiving {
        kind: TrackKind,
        payload: Payload,
        extensions: ExtensionIds,
        publish: Option<Publish>,
    },
}

/// The track on a receiving m-line after the offer.
enum Publish {
    Keep { source: Option<TrackSource> },
    New { track: Track },
}

impl Plan {
    /// Whether media flows on it, one way or the other.
    fn has_media(&self) -> bool {
        matches!(self, Self::Slot { .. } | Self::Receiving { publish: Some(_), .. })
    }
}

fn invalid(why: impl Into<String>) -> MediaError {
    MediaError::InvalidSdp(why.into())
}

impl Endpoint {
    /// Applies a client's offer. `may_publish` refuses a further track under an id: another endpoint of the
    /// pipeline may have it, or the worker no room.
    pub fn handle_offer(
        &mut self,
        now: Instant,
        offer: &Offer,
        host: &Host<'_>,
        session: &mut Session,
        may_publish: impl Fn(TrackId) -> Result<(), MediaError>,
        effects: &mut Effects,
    ) -> Result<Negotiated, MediaError> {
        if self.is_fixed() && !self.lines.is_empty() {
            return Err(invalid("this client has described itself once and for all"));
        }
        let revision = self.negotiation.check_client_offer(now, offer.revision)?;
        let servers = self.lines.iter().filter(|line| line.sending().is_some()).count();
        let description = parse::parse(&offer.sdp, sdp::MAX_CLIENT_MEDIA + servers)?;
        self.check_order(&description.media)?;
        let plans = self.plan(&description.media, &offer.tracks, may_publish)?;
        if self.is_fixed() && !plans.iter().any(Plan::has_media) {
            return Err(invalid("nothing is sent or received on its m-lines in a codec that is known here"));
        }
        let role = if description.setup == Setup::Passive { Role::Client } else { Role::Server };
        let dtls = self.prepare_dtls(&description.fingerprint, role, host.identity)?;

        // Nothing below this line can fail.
        let before: Vec<TrackId> = self.tracks().map(|track| track.id).collect();
        for media in &description.media {
            self.numbering.learn(media);
        }
        for (index, (plan, media)) in plans.into_iter().zip(&description.media).enumerate() {
            self.apply(now, index, plan, media, session);
        }
        self.set_transport(now, description.credentials, description.fingerprint, dtls, effects);
        let sdp = self.answer(&description.media, host);
        self.negotiation.complete_client_offer();
        self.activate(now, session);

        let tracks: Vec<Track> = self.tracks().cloned().collect();
        let published = tracks.iter().filter(|track| !before.contains(&track.id)).cloned().collect();
        let unpublished =
            before.into_iter().filter(|id| !tracks.iter().any(|track| track.id == *id)).collect();
        Ok(Negotiated { answer: Answer { sdp, revision }, tracks, published, unpublished })
    }

    /// RFC 8829, section 5.2.2: m-lines stay where they are; only a rejected one may be replaced.
    pub(super) fn check_order(&self, media: &[Media]) -> Result<(), MediaError> {
        if media.len() < self.lines.len() {
            return Err(invalid("an m-line of the previous description is missing"));
        }
        for (line, media) in self.lines.iter().zip(media) {
            if line.mid != media.mid && !line.is_rejected() {
                return Err(invalid("the m-lines are not in the order of the previous description"));
            }
            let kind = match &line.use_ {
                Use::Rejected { .. } => continue,
                Use::Receiving(receiving) => kind_name(receiving.kind),
                Use::Sending(sending) => kind_name(sending.kind),
                Use::Data { .. } => sdp::DATA_KIND,
            };
            if kind != media.kind {
                return Err(invalid("an m-line changed its kind"));
            }
        }
        Ok(())
    }

    fn plan(
        &self,
        media: &[Media],
        descriptions: &[TrackDescription],
        may_publish: impl Fn(TrackId) -> Result<(), MediaError>,
    ) -> Result<Vec<Plan>, MediaError> {
        let mut mids = HashSet::new();
        for description in descriptions {
            if !media.iter().any(|media| media.mid == description.mid) {
                return Err(invalid("tracks describes an m-line that is not there"));
            }
            if !mids.insert(&description.mid) {
                return Err(invalid("tracks describes an m-line twice"));
            }
        }
        let mut plans = Vec::with_capacity(media.len());
        let mut ids = HashSet::new();
        for (index, media) in media.iter().enumerate() {
            let description = descriptions.iter().find(|it| it.mid == media.mid);
            // There is one association, so one m-line for it: the first.
            let has_data = plans.iter().any(|plan| matches!(plan, Plan::Data { .. }));
            if media.is_data() && !media.is_rejected && !has_data {
                plans.push(Plan::Data { max_message: data::max_message(media.max_message_size) });
                continue;
            }
            let plan = self.plan_line(self.lines.get(index), media, description)?;
            let id = match &plan {
                Plan::Receiving { publish: Some(Publish::New { track }), .. } => {
                    may_publish(track.id)?;
                    Some(track.id)
                }
                Plan::Receiving { publish: Some(Publish::Keep { .. }), .. } => {
                    self.published(index).map(|track| track.id)
                }
                _ => None,
            };
            if id.is_some_and(|id| !ids.insert(id)) {
                return Err(invalid("two tracks have the same id"));
            }
            if ids.len() > MAX_TRACKS {
                return Err(MediaError::LimitExceeded("published tracks"));
            }
            plans.push(plan);
        }
        Ok(plans)
    }

    fn published(&self, index: usize) -> Option<&Track> {
        Some(&self.lines.get(index)?.receiving()?.published.as_ref()?.track)
    }

    fn plan_line(
        &self,
        line: Option<&Line>,
        media: &Media,
        description: Option<&TrackDescription>,
    ) -> Result<Plan, MediaError> {
        if let Some(sending) = line.and_then(Line::sending) {
            let stop =
                media.is_rejected || !codecs::known(media).iter().any(|it| it.codec == sending.payload.codec);
            return Ok(Plan::Sending { stop });
        }
        let kind = if media.is_audio() { TrackKind::Audio } else { TrackKind::Video };
        let is_slot = self.is_fixed() && self.can_subscribe && media.direction.receives();
        if is_slot && !(self.can_publish && media.direction.sends()) {
            let payloads = slots::payloads(media);
            return Ok(match payloads.is_empty() || media.is_rejected {
                true => Plan::Reject,
                false => Plan::Slot { kind, payloads },
            });
        }
        let receiving = line.and_then(Line::receiving);
        let mut known = codecs::known(media);
        known.sort_by_key(|payload| self.treatment.rank(payload.codec));
        let current = receiving.map(|receiving| receiving.payload.codec);
        let payload = known.iter().find(|it| Some(it.codec) == current).or_else(|| known.first()).cloned();
        let (Some(payload), false) = (payload, media.is_rejected) else { return Ok(Plan::Reject) };
        let extensions = codecs::extension_ids(media, payload.codec);
        let mut publish = None;
        if media.direction.sends() {
            if !self.can_publish {
                return Err(MediaError::Forbidden);
            }
            let published = receiving.and_then(|receiving| receiving.published.as_ref());
            let wanted = description.and_then(|it| it.track_id);
            publish = Some(match published {
                Some(published)
                    if current == Some(payload.codec) && wanted.is_none_or(|id| id == published.track.id) =>
                {
                    Publish::Keep { source: description.map(|it| it.source) }
                }
                _ => Publish::New {
                    track: Track {
                        id: wanted.unwrap_or_else(TrackId::new),
                        kind,
                        source: description.map_or(default_source(kind), |it| it.source),
                        muted: description.is_some_and(|it| it.muted),
                        mid: media.mid.clone(),
                    },
                },
            });
        }
        Ok(Plan::Receiving { kind, payload, extensions, publish })
    }

    fn apply(&mut self, now: Instant, index: usize, plan: Plan, media: &Media, session: &mut Session) {
        match plan {
            Plan::Reject => {
                self.unpublish(index, session);
                if self.lines.get(index).is_some_and(|line| line.data().is_some()) {
                    self.reject_data(now);
                }
                self.put(index, media, rejected(media));
            }
            Plan::Data { max_message } => self.put(index, media, Use::Data { max_message }),
            Plan::Slot { kind, payloads } => self.make_slot(now, index, media, kind, payloads, session),
            Plan::Sending { stop: true } => {
                self.drop_subscription(index, true, session);
                self.put(index, media, rejected(media));
            }
            Plan::Sending { stop: false } => self.accept_sending(now, index, media, session),
            Plan::Receiving { kind, payload, extensions, publish } => {
                let kept = match &publish {
                    Some(Publish::Keep { .. }) => {
                        self.lines.get_mut(index).and_then(|line| line.receiving_mut()?.published.take())
                    }
                    _ => None,
                };
                self.unpublish(index, session);
                let published = match publish {
                    None => None,
                    Some(Publish::Keep { source }) => kept.map(|mut published| {
                        published.track.source = source.unwrap_or(published.track.source);
                        published
                    }),
                    Some(Publish::New { track }) => {
                        let publication = session.publish(payload.codec);
                        session.set_muted(now, publication, track.muted);
                        Some(Published { track, publication })
                    }
                };
                let encodings = Encodings::of(media, &extensions);
                if let Some(published) = &published {
                    let descriptor = extensions.id(Extension::DependencyDescriptor);
                    session.describe(published.publication, encodings.count(), descriptor);
                }
                let formats = payload.formats();
                let receiving =
                    Receiving { kind, payload, formats, extensions, encodings, published, max_bitrate: None };
                self.streams.set_line(now, index, media, &receiving);
                self.put(index, media, Use::Receiving(receiving));
            }
        }
    }

    fn make_slot(
        &mut self,
        now: Instant,
        index: usize,
        media: &Media,
        kind: TrackKind,
        payloads: Vec<(Payload, ExtensionIds)>,
        session: &mut Session,
    ) {
        let whose = self.fixed.and_then(|fixed| fixed.participant_id);
        let stream_id = whose.map_or_else(|| self.id.to_string(), |id| id.to_string());
        let subscription = session.subscribe_later();
        let Some(sending) = Sending::with_slot(now, kind, payloads, stream_id, subscription) else {
            // Without a codec there is no such plan.
            session.unsubscribe(subscription);
            return self.put(index, media, rejected(media));
        };
        self.bandwidth.learn(&sending.extensions);
        self.senders.insert(sending.ssrc, index);
        self.put(index, media, Use::Sending(sending));
    }

    fn put(&mut self, index: usize, media: &Media, use_: Use) {
        let line = Line { mid: media.mid.clone(), use_ };
        if index < self.lines.len() {
            self.lines[index] = line;
        } else {
            self.lines.push(line);
        }
    }

    /// Ends what is published on an m-line, if anything. Returns the track.
    pub(super) fn unpublish(&mut self, index: usize, session: &mut Session) -> Option<TrackId> {
        let published = self.lines.get_mut(index)?.receiving_mut()?.published.take()?;
        session.unpublish(published.publication);
        self.streams.remove_line(index);
        Some(published.track.id)
    }

    /// The answer that the lines amount to, for the m-lines that were offered.
    fn answer(&mut self, media: &[Media], host: &Host<'_>) -> String {
        // An m-line whose track is gone is inactive in this answer: the client knows it is unused.
        for line in &mut self.lines {
            if let Some(sending) = line.sending_mut()
                && sending.carried.is_none()
            {
                sending.is_free = true;
            }
        }
        self.tell_limit();
        let setup = self.answer_setup();
        let sections: Vec<Section<'_>> = self.lines.iter().take(media.len()).map(Line::section).collect();
        let text = write::write(&self.session_level(host, setup), &sections);
        self.sdp_version += 1;
        text
    }

    /// Puts what the client may send at most into the m-lines that it sends pictures on.
    pub(super) fn tell_limit(&mut self) {
        let limit = self.bandwidth.limit();
        for receiving in self.lines.iter_mut().filter_map(Line::receiving_mut) {
            receiving.max_bitrate = limit.filter(|_| receiving.kind == TrackKind::Video);
        }
    }

    pub(super) fn session_level<'a>(&'a self, host: &Host<'a>, setup: Setup) -> write::Session<'a> {
        write::Session {
            id: self.sdp_id,
            version: self.sdp_version,
            credentials: self.ice.local(),
            fingerprint: host.identity.fingerprint(),
            setup,
            candidates: host.candidates,
        }
    }
}

pub(super) fn rejected(media: &Media) -> Use {
    Use::Rejected {
        kind: media.kind.clone(),
        protocol: media.protocol.clone(),
        formats: media.formats_text.clone(),
    }
}

const fn default_source(kind: TrackKind) -> TrackSource {
    match kind {
        TrackKind::Audio => TrackSource::Microphone,
        TrackKind::Video => TrackSource::Camera,
    }
}
