//! `goog_cc`: libwebrtc's congestion controller, ported line by line.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use goog_cc::network_control::{NetworkControllerConfig, NetworkControllerInterface};
use goog_cc::transport::{
    NetworkAvailability, NetworkControlUpdate, PacedPacketInfo, PacketResult, ProbeClusterConfig,
    ProcessInterval, SentPacket, StreamsConfig, TargetRateConstraints, TransportPacketsFeedback,
};
use goog_cc::units::{DataRate, DataSize, Timestamp};
use goog_cc::{GoogCcConfig, GoogCcNetworkController};

use crate::sim::{Controller, Micros};

const PROCESS: Duration = Duration::from_millis(25);

struct Probe {
    config: ProbeClusterConfig,
    began: Option<Instant>,
    bytes: i64,
    packets: i64,
}

pub struct GoogCc {
    controller: GoogCcNetworkController,
    epoch: Instant,
    sent: VecDeque<(SentPacket, bool)>,
    next: i64,
    target: i64,
    probes: VecDeque<Probe>,
    processed: Option<Instant>,
    wanted: u64,
}

impl GoogCc {
    pub fn new(now: Instant) -> Self {
        let constraints = TargetRateConstraints {
            at_time: Timestamp::from_micros(0),
            min_data_rate: Some(DataRate::from_bits_per_sec(30_000)),
            max_data_rate: Some(DataRate::from_bits_per_sec(50_000_000)),
            starting_rate: Some(DataRate::from_bits_per_sec(300_000)),
        };
        let stream_based_config =
            StreamsConfig { requests_alr_probing: Some(true), ..StreamsConfig::default() };
        let config = NetworkControllerConfig { constraints, stream_based_config, ..Default::default() };
        let mut this = Self {
            controller: GoogCcNetworkController::new(config, GoogCcConfig::default()),
            epoch: now,
            sent: VecDeque::new(),
            next: 0,
            target: 300_000,
            probes: VecDeque::new(),
            processed: None,
            wanted: 0,
        };
        let available = NetworkAvailability { at_time: Timestamp::from_micros(0), network_available: true };
        let update = this.controller.on_network_availability(available);
        this.take(update);
        this
    }

    fn at(&self, now: Instant) -> Timestamp {
        Timestamp::from_micros(now.duration_since(self.epoch).as_micros() as i64 + 1_000_000)
    }

    fn take(&mut self, update: NetworkControlUpdate) {
        if let Some(target) = update.target_rate {
            self.target = target.target_rate.bps();
        }
        let probe = |config| Probe { config, began: None, bytes: 0, packets: 0 };
        self.probes.extend(update.probe_cluster_configs.into_iter().map(probe));
    }

    fn in_flight(&self) -> DataSize {
        DataSize::from_bytes(self.sent.iter().filter(|it| !it.1).map(|it| it.0.size.bytes()).sum())
    }
}

fn needed(config: &ProbeClusterConfig) -> i64 {
    (config.target_data_rate.bps_float() / 8.0 * config.target_duration.seconds_float()) as i64
}

impl Controller for GoogCc {
    fn handle_sent(&mut self, now: Instant, size: usize) -> u16 {
        let mut pacing_info = PacedPacketInfo::default();
        if let Some(probe) = self.probes.front_mut().filter(|it| it.began.is_some()) {
            let (count, bytes) = (i64::from(probe.config.target_probe_count), needed(&probe.config));
            pacing_info = PacedPacketInfo::new(probe.config.id, count, bytes);
            pacing_info.send_bitrate = probe.config.target_data_rate;
            pacing_info.probe_cluster_bytes_sent = probe.bytes;
            probe.bytes += size as i64;
            probe.packets += 1;
            if probe.bytes >= bytes && probe.packets >= count {
                self.probes.pop_front();
            }
        }
        let packet = SentPacket {
            send_time: self.at(now),
            size: DataSize::from_bytes(size as i64),
            sequence_number: self.next,
            pacing_info,
            data_in_flight: self.in_flight(),
            ..SentPacket::default()
        };
        self.sent.push_back((packet, false));
        if self.sent.len() > 4096 {
            self.sent.pop_front();
        }
        let update = self.controller.on_sent_packet(packet);
        self.take(update);
        self.next += 1;
        (self.next - 1) as u16
    }

    fn handle_feedback(&mut self, now: Instant, reference: u32, arrivals: &[(u16, Option<Micros>)]) {
        let (mut packet_feedbacks, newest) = (Vec::new(), self.next - 1);
        for (number, arrival) in arrivals {
            let number = newest + i64::from(number.wrapping_sub(newest as u16) as i16);
            let first = self.next - self.sent.len() as i64;
            let Some(sent) = usize::try_from(number - first).ok().and_then(|it| self.sent.get_mut(it)) else {
                continue;
            };
            if sent.1 {
                continue;
            }
            sent.1 = arrival.is_some();
            let received =
                arrival.map(|it| Timestamp::from_micros(it + i64::from(reference) * 64_000 + 1_000_000));
            packet_feedbacks.push(PacketResult {
                sent_packet: sent.0,
                receive_time: received.unwrap_or(Timestamp::plus_infinity()),
                ..PacketResult::default()
            });
        }
        let feedback = TransportPacketsFeedback {
            feedback_time: self.at(now),
            data_in_flight: self.in_flight(),
            packet_feedbacks,
            sendless_arrival_times: Vec::new(),
        };
        let update = self.controller.on_transport_packets_feedback(feedback);
        self.take(update);
    }

    fn handle_timeout(&mut self, now: Instant) {
        if self.processed.is_some_and(|at| now < at + PROCESS) {
            return;
        }
        self.processed = Some(now);
        let update =
            self.controller.on_process_interval(ProcessInterval { at_time: self.at(now), pacer_queue: None });
        self.take(update);
    }

    fn set_wanted(&mut self, wanted: u64) {
        if self.wanted != wanted {
            self.wanted = wanted;
            let max = DataRate::from_bits_per_sec(wanted as i64);
            let config = StreamsConfig {
                at_time: Timestamp::from_micros(1_000_000),
                requests_alr_probing: Some(true),
                max_total_allocated_bitrate: Some(max),
                ..StreamsConfig::default()
            };
            let update = self.controller.on_streams_config(config);
            self.take(update);
        }
    }

    fn padding(&mut self, now: Instant) -> Option<usize> {
        let probe = self.probes.front_mut()?;
        let began = *probe.began.get_or_insert(now);
        let passed = now.duration_since(began).as_secs_f64() + 0.002;
        let due = probe.config.target_data_rate.bps_float() / 8.0 * passed;
        let size = (needed(&probe.config) / 6).clamp(100, 1200);
        ((probe.bytes as f64) < due).then_some(size as usize)
    }

    fn estimate(&self, _: Instant) -> u64 {
        self.target.max(0) as u64
    }

    fn target(&self, _: Instant) -> u64 {
        self.target.max(0) as u64
    }
}
