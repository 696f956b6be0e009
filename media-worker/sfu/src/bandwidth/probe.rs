//! Probes: short bursts at a higher rate that show whether the path carries it, so that the estimate need
//! not creep up, and need not believe that what an application sends is all that fits.
//!
//! A probe is whatever is sent while it lasts, filled up with padding. The rate at which it arrives is the
//! result; if it arrives slower than it was sent, the path is full at that rate.

use super::Micros;
use super::feedback::Arrival;

/// How long a probe lasts: long beside a radio link's jitter, short beside what a listener hears,
const LENGTH: Micros = 40_000;
/// but longer at low rates, for this many bits, up to this long.
const MIN_BITS: f64 = 8000.0;
const MAX_LENGTH: Micros = 150_000;
/// Padding is sent in slices of this length.
pub const SLICE: Micros = 5_000;
/// A probe that arrives at less than this part of its rate has filled the path,
const FULL: f64 = 0.9;
/// of which then this part is used.
const USE: f64 = 0.95;
/// The part of a probe that must arrive to be judged.
const MIN_ARRIVED: f64 = 0.5;
/// After this long a probe is judged by what has arrived, or forgotten.
const PATIENCE: Micros = 1_000_000;
/// How long a probe's own queue can be felt behind it.
const SHADOW: Micros = 150_000;
/// Probes that can be on their way together.
const MAX_WAITING: usize = 4;
/// Sizes of padding packets, in bytes.
const PADDING: (f64, f64) = (100.0, 1200.0);
const PACKETS: f64 = 8.0;

/// What a probe showed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Found {
    /// In bit/s.
    pub rate: f64,
    /// Whether the path carries no more.
    pub is_full: bool,
}

#[derive(Debug, Clone, Copy)]
struct Cluster {
    id: u8,
    /// In bit/s.
    rate: f64,
    began: Micros,
    bytes_sent: f64,
    packets_sent: u32,
    packets_arrived: u32,
    bytes_arrived: f64,
    /// Sent and arrived: earliest and latest, with the sizes that do not count (the last sent, the first arrived).
    sent: (Micros, Micros),
    arrived: (Micros, Micros),
    last_sent_size: f64,
    first_arrived_size: f64,
}

impl Cluster {
    fn length(&self) -> Micros {
        ((MIN_BITS * 1e6 / self.rate) as Micros).clamp(LENGTH, MAX_LENGTH)
    }

    fn bytes(&self) -> f64 {
        self.rate * self.length() as f64 / 8e6
    }

    fn handle_arrival(&mut self, packet: &Arrival) {
        let size = f64::from(packet.size);
        if self.packets_arrived == 0 {
            (self.sent, self.arrived) = ((packet.sent, packet.sent), (packet.arrived, packet.arrived));
            (self.last_sent_size, self.first_arrived_size) = (size, size);
        }
        if packet.sent >= self.sent.1 {
            (self.sent.1, self.last_sent_size) = (packet.sent, size);
        }
        if packet.arrived < self.arrived.0 {
            (self.arrived.0, self.first_arrived_size) = (packet.arrived, size);
        }
        self.sent.0 = self.sent.0.min(packet.sent);
        self.arrived.1 = self.arrived.1.max(packet.arrived);
        self.packets_arrived += 1;
        self.bytes_arrived += size;
    }

    /// `loss` is the part that the path loses anyway.
    fn judge(&self, loss: f64) -> Option<Found> {
        let (sent, arrived) = (self.sent.1 - self.sent.0, self.arrived.1 - self.arrived.0);
        if sent < LENGTH / 4 || arrived < LENGTH / 8 || self.packets_arrived < 4 {
            return None;
        }
        let sent_rate = (self.bytes_arrived - self.last_sent_size) * 8e6 / sent as f64;
        let rate = (self.bytes_arrived - self.first_arrived_size) * 8e6 / arrived as f64;
        let whole = 1.0 - loss.clamp(0.0, 0.5);
        if rate < FULL * sent_rate {
            return Some(Found { rate: USE * rate / whole, is_full: true });
        }
        Some(Found { rate: rate.min(sent_rate) / whole, is_full: false })
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Probes {
    next: u8,
    active: Option<Cluster>,
    waiting: [Option<Cluster>; MAX_WAITING],
    /// When the last one began, and until when what is sent stands in its queue.
    last: Option<Micros>,
    shadow: Micros,
}

impl Probes {
    /// Whether one is being sent or its result is awaited.
    pub fn is_busy(&self) -> bool {
        self.active.is_some() || self.waiting.iter().any(Option::is_some)
    }

    /// When the last one began.
    pub fn last(&self) -> Option<Micros> {
        self.last
    }

    /// Whether a packet that was sent then stood in a probe's queue: delay that grew there says nothing.
    pub fn shadows(&self, sent: Micros) -> bool {
        self.last.is_some_and(|began| (began..self.shadow).contains(&sent))
    }

    /// Whether one is being sent.
    pub fn is_active(&self) -> bool {
        self.active.is_some()
    }

    /// Begins a probe of this rate in bit/s, instead of one that is being sent.
    pub fn begin(&mut self, now: Micros, rate: f64) {
        self.last = Some(now);
        self.active = Some(Cluster {
            id: self.next,
            rate,
            began: now,
            bytes_sent: 0.0,
            packets_sent: 0,
            packets_arrived: 0,
            bytes_arrived: 0.0,
            sent: (0, 0),
            arrived: (0, 0),
            last_sent_size: 0.0,
            first_arrived_size: 0.0,
        });
        self.next = self.next.wrapping_add(1);
    }

    /// Takes a packet that is sent into the probe that is being sent.
    pub fn handle_sent(&mut self, now: Micros, size: usize) -> Option<u8> {
        let cluster = self.active.as_mut()?;
        self.shadow = now + SHADOW;
        cluster.bytes_sent += size as f64;
        cluster.packets_sent += 1;
        let id = cluster.id;
        if cluster.bytes_sent >= cluster.bytes() || now - cluster.began > 2 * MAX_LENGTH {
            let place = usize::from(id) % MAX_WAITING;
            self.waiting[place] = self.active.take();
        }
        Some(id)
    }

    /// The size of a padding packet that is to be sent now, in bytes.
    pub fn padding(&self, now: Micros) -> Option<usize> {
        let cluster = self.active.as_ref()?;
        let passed = (now - cluster.began + SLICE).min(cluster.length()) as f64;
        let due = cluster.rate * passed / 8e6;
        let size = (cluster.bytes() / PACKETS).clamp(PADDING.0, PADDING.1);
        (cluster.bytes_sent < due).then_some(size as usize)
    }

    /// Takes an arrival of a probe's packet.
    pub fn handle_arrival(&mut self, packet: &Arrival) {
        let Some(id) = packet.cluster else { return };
        let waiting = self.waiting.iter_mut().flatten().chain(self.active.as_mut());
        for cluster in waiting.filter(|it| it.id == id) {
            cluster.handle_arrival(packet);
        }
    }

    /// The result of a probe that has become known.
    pub fn poll_found(&mut self, now: Micros, loss: f64) -> Option<Found> {
        for place in &mut self.waiting {
            let Some(cluster) = place else { continue };
            let enough = f64::from(cluster.packets_sent) * (1.0 - loss) * 0.9;
            if f64::from(cluster.packets_arrived) >= enough.max(4.0) || now - cluster.began > PATIENCE {
                let is_known =
                    f64::from(cluster.packets_arrived) >= MIN_ARRIVED * f64::from(cluster.packets_sent);
                let found = is_known.then(|| cluster.judge(loss)).flatten();
                *place = None;
                if found.is_some() {
                    return found;
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Probes a path at a rate; `capacity` in bit/s.
    fn probe(rate: f64, capacity: f64) -> Option<Found> {
        let mut probes = Probes::default();
        probes.begin(0, rate);
        let (mut now, mut free) = (0, 0.0_f64);
        let mut arrivals = Vec::new();
        while probes.is_active() {
            while let Some(size) = probes.padding(now) {
                let cluster = probes.handle_sent(now, size);
                free = free.max(now as f64) + size as f64 * 8e6 / capacity;
                arrivals.push(Arrival { sent: now, arrived: free as Micros, size: size as u16, cluster });
            }
            now += SLICE;
            assert!(now < 1_000_000);
        }
        for arrival in &arrivals {
            probes.handle_arrival(arrival);
        }
        let found = probes.poll_found(now, 0.0);
        assert!(found.is_none() || !probes.is_busy());
        found
    }

    #[test]
    fn finds_what_the_path_carries() {
        for rate in [7e4, 2e5, 6e5, 2e6, 1e7] {
            let found = probe(rate, 1e8).unwrap();
            assert!(
                !found.is_full && found.rate > 0.75 * rate && found.rate < 1.3 * rate,
                "{rate}: {found:?}"
            );
            let found = probe(rate, rate / 2.0).unwrap();
            assert!(found.is_full, "{rate}");
            assert!((0.8..1.05).contains(&(found.rate / (rate / 2.0))), "{rate}: {found:?}");
        }
    }

    #[test]
    fn a_probe_that_is_lost_is_forgotten() {
        let mut probes = Probes::default();
        probes.begin(0, 1e6);
        for now in 0..200 {
            if probes.padding(now * 1000).is_some() {
                probes.handle_sent(now * 1000, 1000);
            }
        }
        assert!(!probes.is_active() && probes.is_busy());
        assert_eq!(probes.poll_found(PATIENCE + 1, 0.0), None);
        assert!(!probes.is_busy());
    }
}
