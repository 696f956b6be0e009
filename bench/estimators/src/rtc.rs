//! The estimator of `rtc-interceptor`, webrtc-rs's port of pion's GCC. It knows no probes.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use rtc_interceptor::{BandwidthEstimator, PacketReport};
use rtc_rtcp::transport_feedbacks::cc_feedback_report::Ecn;

use crate::sim::{Controller, Micros};

pub struct Gcc {
    estimator: rtc_interceptor::Gcc,
    /// When, how large, and whether its fate is known.
    sent: VecDeque<(Instant, usize, bool)>,
    next: i64,
}

impl Gcc {
    pub fn new(_: Instant) -> Self {
        let estimator = rtc_interceptor::Gcc::new(300_000.0, 30_000.0, 50_000_000.0);
        Self { estimator, sent: VecDeque::new(), next: 0 }
    }
}

impl Controller for Gcc {
    fn handle_sent(&mut self, now: Instant, size: usize) -> u16 {
        self.sent.push_back((now, size, false));
        if self.sent.len() > 4096 {
            self.sent.pop_front();
        }
        self.next += 1;
        (self.next - 1) as u16
    }

    fn handle_feedback(&mut self, now: Instant, reference: u32, arrivals: &[(u16, Option<Micros>)]) {
        let (mut reports, newest) = (Vec::new(), self.next - 1);
        for (number, arrival) in arrivals {
            let id = newest + i64::from(number.wrapping_sub(newest as u16) as i16);
            let first = self.next - self.sent.len() as i64;
            let Some(sent) = usize::try_from(id - first).ok().and_then(|it| self.sent.get_mut(it)) else {
                continue;
            };
            if std::mem::replace(&mut sent.2, true) {
                continue;
            }
            let at = arrival.map(|it| Duration::from_micros((it + i64::from(reference) * 64_000) as u64));
            reports.push(PacketReport {
                ssrc: 1,
                id: id as u64,
                rtp_sequence_number: *number,
                is_twcc: true,
                twcc_sequence_number: *number,
                size: sent.1,
                arrived: at.is_some(),
                departure: sent.0,
                arrival: at,
                ecn: Ecn::NotEct,
            });
        }
        self.estimator.on_reports(now, &reports);
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.estimator.handle_timeout(now);
    }

    fn set_wanted(&mut self, _: u64) {}

    fn padding(&mut self, _: Instant) -> Option<usize> {
        None
    }

    fn estimate(&self, _: Instant) -> u64 {
        self.estimator.target_bitrate() as u64
    }

    fn target(&self, now: Instant) -> u64 {
        self.estimate(now)
    }
}
