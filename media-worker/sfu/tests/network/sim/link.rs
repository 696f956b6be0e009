//! A link: a queue in front of a rate that follows a schedule, then a distance with all that happens there.

use super::{MS, Micros, Random, SECOND};

/// What a link is like. Times in µs, rates in bit/s.
#[derive(Debug, Clone)]
pub struct Plan {
    /// From when on which rate; the first begins at 0.
    pub rates: Vec<(Micros, f64)>,
    pub delay: Micros,
    /// The most that a packet is late at random; packets stay in order.
    pub jitter: Micros,
    /// What waits at most: this long at the first rate. What comes then is dropped.
    pub queue: Micros,
    /// The part of packets that is lost, each by itself,
    pub loss: f64,
    /// and in bursts (Gilbert and Elliott): chance to enter, chance to leave, loss inside.
    pub bursts: Option<(f64, f64, f64)>,
    /// The part of packets that take twice as long and are overtaken.
    pub reordered: f64,
    /// Nothing passes for so long once in each second, but nothing is lost either: a radio link, or a receiver that does not read.
    pub pauses: Option<Micros>,
    /// Nothing passes from, until.
    pub outages: Vec<(Micros, Micros)>,
}

impl Plan {
    pub fn new(rate: f64) -> Self {
        Self {
            rates: vec![(0, rate)],
            delay: 25 * MS,
            jitter: 2 * MS,
            queue: 300 * MS,
            loss: 0.0,
            bursts: None,
            reordered: 0.0,
            pauses: None,
            outages: Vec::new(),
        }
    }

    pub fn then(mut self, at: Micros, rate: f64) -> Self {
        self.rates.push((at, rate));
        self
    }

    pub fn rate(&self, at: Micros) -> f64 {
        self.rates.iter().rev().find(|(from, _)| *from <= at).map_or(self.rates[0].1, |(_, rate)| *rate)
    }
}

pub struct Link {
    pub plan: Plan,
    /// When the last packet in the queue has left it.
    free: Micros,
    last_arrival: Micros,
    is_bursting: bool,
}

impl Link {
    pub fn new(plan: Plan) -> Self {
        Self { plan, free: 0, last_arrival: 0, is_bursting: false }
    }

    /// When a packet that is sent now arrives, if it does.
    pub fn send(&mut self, now: Micros, size: usize, random: &mut Random) -> Option<Micros> {
        let bits = size as f64 * 8.0;
        let waiting = self.carried(now, self.free);
        if waiting + bits > self.plan.rates[0].1 * self.plan.queue as f64 / SECOND as f64 {
            return None;
        }
        self.free = self.awake(self.finish(self.free.max(now), bits));
        if let Some((enter, leave, _)) = self.plan.bursts {
            let turns = random.chance(if self.is_bursting { leave } else { enter });
            self.is_bursting ^= turns;
        }
        let burst_loss = self.plan.bursts.filter(|_| self.is_bursting).map_or(0.0, |(_, _, loss)| loss);
        let is_out = self.plan.outages.iter().any(|(from, until)| (*from..*until).contains(&self.free));
        // Always drawn, so that one kind of loss does not change where the other hits.
        let is_lost = random.chance(self.plan.loss) | random.chance(burst_loss) | is_out;
        let late = (random.unit() * random.unit() * self.plan.jitter as f64) as Micros;
        let is_overtaken = random.chance(self.plan.reordered);
        if is_lost {
            return None;
        }
        let arrival = (self.free + self.plan.delay + late).max(self.last_arrival);
        if is_overtaken {
            return Some(arrival + self.plan.delay);
        }
        self.last_arrival = arrival;
        Some(arrival)
    }

    /// The end of the pause that it is at a time, else that time. When in its second a pause begins differs from one to the next.
    fn awake(&self, at: Micros) -> Micros {
        let Some(length) = self.plan.pauses else { return at };
        let second = at.div_euclid(SECOND);
        let begins = second * SECOND + second * 7919 % 17 * 40 * MS;
        if (begins..begins + length).contains(&at) { begins + length } else { at }
    }

    /// The bits that the link carries between two times.
    fn carried(&self, from: Micros, until: Micros) -> f64 {
        self.pieces(from)
            .map_while(|(start, end, rate)| {
                (start < until).then(|| (end.min(until) - start) as f64 * rate / SECOND as f64)
            })
            .sum()
    }

    /// When so many bits have left that begin to leave at `from`.
    fn finish(&self, from: Micros, mut bits: f64) -> Micros {
        for (start, end, rate) in self.pieces(from) {
            let most = (end - start) as f64 * rate / SECOND as f64;
            if bits <= most {
                return start + (bits * SECOND as f64 / rate).ceil() as Micros;
            }
            bits -= most;
        }
        unreachable!("the last piece has no end")
    }

    /// The schedule from a time on, in pieces of one rate.
    fn pieces(&self, from: Micros) -> impl Iterator<Item = (Micros, Micros, f64)> {
        let rates = &self.plan.rates;
        (0..rates.len()).filter_map(move |index| {
            let end = rates.get(index + 1).map_or(Micros::MAX / 4, |(at, _)| *at);
            let start = rates[index].0.max(from);
            (start < end).then_some((start, end, rates[index].1))
        })
    }
}
