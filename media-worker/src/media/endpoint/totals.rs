//! What a connection comes to over its whole life, added up look by look.

use std::time::{Duration, Instant};

use common::message::{CandidateType, PathStats};
use common::model::{EndpointId, NetworkSummary, Quality, QualityShares};

/// See the module.
#[derive(Default)]
pub struct Totals {
    /// Since when it has been up, and up to when `times` are counted.
    counted: Option<(Instant, Instant)>,
    /// By quality, from the best to the worst.
    times: [Duration; 4],
    /// Packets that the client sent, and how many of them are lost.
    received: Part,
    /// Packets that it was sent, and how many of them it reported as lost.
    sent: Part,
    round_trip_ms: Mean,
    estimate: Mean,
}

#[derive(Default)]
struct Part {
    all: f64,
    lost: f64,
}

#[derive(Default)]
struct Mean {
    sum: f64,
    count: f64,
}

impl Totals {
    /// The connection is up. Again changes nothing.
    pub fn begin(&mut self, now: Instant) {
        self.counted.get_or_insert((now, now));
    }

    pub fn has_begun(&self) -> bool {
        self.counted.is_some()
    }

    /// The time until now had this quality.
    pub fn pass(&mut self, now: Instant, quality: Quality) {
        if let Some((_, until)) = &mut self.counted {
            self.times[quality as usize] += now.saturating_duration_since(*until);
            *until = now;
        }
    }

    pub fn note_received(&mut self, all: f64, lost: f64) {
        self.received.note(all, lost);
    }

    pub fn note_sent(&mut self, all: f64, lost: f64) {
        self.sent.note(all, lost);
    }

    pub fn note_path(&mut self, round_trip_ms: Option<f64>, estimate: Option<u64>) {
        round_trip_ms.into_iter().for_each(|value| self.round_trip_ms.note(value));
        estimate.into_iter().for_each(|value| self.estimate.note(value as f64));
    }

    /// Until now, with what the connection has now.
    pub fn summary(
        &self,
        now: Instant,
        endpoint_id: EndpointId,
        quality: Quality,
        path: Option<PathStats>,
    ) -> NetworkSummary {
        let Some((began, until)) = self.counted else { return NetworkSummary::new(endpoint_id) };
        let mut times = self.times;
        times[quality as usize] += now.saturating_duration_since(until);
        let duration = now.saturating_duration_since(began);
        let share = |quality: Quality| match duration.as_secs_f64() {
            0.0 => 0.0,
            all => thousandths(times[quality as usize].as_secs_f64() / all),
        };
        NetworkSummary {
            endpoint_id,
            duration_ms: i64::try_from(duration.as_millis()).unwrap_or(i64::MAX),
            quality: QualityShares {
                excellent: share(Quality::Excellent),
                good: share(Quality::Good),
                poor: share(Quality::Poor),
                lost: share(Quality::Lost),
            },
            inbound_loss: self.received.share(),
            outbound_loss: self.sent.share(),
            round_trip_time_ms: self.round_trip_ms.value().map(|value| (value * 10.0).round() / 10.0),
            available_outgoing_bitrate_bps: self.estimate.value().map(|value| value as i64),
            protocol: path.map(|_| "udp".to_owned()),
            remote_candidate_type: path.map(|path| name(path.remote_candidate_type).to_owned()),
        }
    }
}

impl Part {
    fn note(&mut self, all: f64, lost: f64) {
        self.all += all;
        self.lost += lost;
    }

    fn share(&self) -> Option<f64> {
        (self.all > 0.0).then(|| (self.lost / self.all * 100_000.0).round() / 100_000.0)
    }
}

impl Mean {
    fn note(&mut self, value: f64) {
        self.sum += value;
        self.count += 1.0;
    }

    fn value(&self) -> Option<f64> {
        (self.count > 0.0).then(|| self.sum / self.count)
    }
}

fn thousandths(share: f64) -> f64 {
    (share * 1000.0).round() / 1000.0
}

fn name(kind: CandidateType) -> &'static str {
    match kind {
        CandidateType::Host => "host",
        CandidateType::Srflx => "srflx",
        CandidateType::Prflx => "prflx",
        CandidateType::Relay => "relay",
    }
}

#[cfg(test)]
mod tests {
    use common::message::{AddressFamily, PathProtocol};

    use super::*;

    #[test]
    fn a_summary_is_of_the_whole_time_until_now() {
        let (mut totals, start, id) = (Totals::default(), Instant::now(), EndpointId::new());
        let at = |seconds| start + Duration::from_secs(seconds);
        totals.pass(at(1), Quality::Poor);
        assert_eq!(
            totals.summary(at(5), id, Quality::Excellent, None),
            NetworkSummary::new(id),
            "it never was up"
        );
        totals.begin(at(10));
        totals.begin(at(12));
        totals.pass(at(20), Quality::Excellent);
        totals.pass(at(22), Quality::Lost);
        totals.note_received(900.0, 9.0);
        totals.note_received(100.0, 0.0);
        totals.note_path(Some(30.0), Some(1_000_000));
        totals.note_path(None, Some(2_000_000));
        totals.note_path(Some(40.0), None);
        let path = PathStats {
            protocol: PathProtocol::Udp,
            address_family: AddressFamily::Ipv4,
            remote_candidate_type: CandidateType::Relay,
        };
        let summary = totals.summary(at(30), id, Quality::Good, Some(path));
        let expected = NetworkSummary {
            endpoint_id: id,
            duration_ms: 20_000,
            quality: QualityShares { excellent: 0.5, good: 0.4, poor: 0.0, lost: 0.1 },
            inbound_loss: Some(0.009),
            outbound_loss: None,
            round_trip_time_ms: Some(35.0),
            available_outgoing_bitrate_bps: Some(1_500_000),
            protocol: Some("udp".into()),
            remote_candidate_type: Some("relay".into()),
        };
        assert_eq!(summary, expected);
    }
}
