//! Data channels of one endpoint: records of its DTLS association in, records out.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::lines::Line;
use super::{Effects, Endpoint};
use crate::media::data::{Data, DataStats, Delivery, Message};
use crate::media::drops::Reason;

/// Without a path nothing can leave; it is looked for one again after this long.
const NO_PATH: Duration = Duration::from_secs(1);

impl Endpoint {
    /// Begins the association when its m-line is there and none is running.
    pub(super) fn start_data(&mut self, now: Instant) {
        let Some(max_message) = self.lines.iter().find_map(Line::data) else { return };
        let Some(role) = self.dtls.as_ref().map(|dtls| dtls.role()) else { return };
        match &mut self.data {
            Some(data) if !data.is_over() => data.set_max_message(max_message),
            data => {
                if let Some(past) = data.replace(Box::new(Data::new(now, role, max_message))) {
                    self.data_past += past.stats();
                }
                self.data_due = Some(now);
            }
        }
    }

    /// The client has given its m-line up.
    pub(super) fn reject_data(&mut self, now: Instant) {
        if let Some(data) = &mut self.data {
            data.reject(now);
            self.data_due = Some(now);
        }
    }

    /// Takes what the last datagram brought.
    pub(super) fn handle_records(&mut self, now: Instant, effects: &mut Effects) {
        let records = self.dtls.as_mut().map(|dtls| dtls.take_received()).unwrap_or_default();
        if records.is_empty() || self.is_closed() {
            return;
        }
        self.seen(now, effects);
        let Some(data) = &mut self.data else {
            effects.drops.extend(records.iter().map(|_| Reason::NoData));
            return;
        };
        for record in records {
            data.handle_packet(now, &record);
        }
        self.turn_data(now, effects);
    }

    pub(super) fn handle_data_timeout(&mut self, now: Instant, effects: &mut Effects) {
        if let Some(data) = &mut self.data {
            data.handle_timeout(now);
            self.turn_data(now, effects);
        }
    }

    /// Takes messages that wait and sends packets that wait, some of each; what is left is due at once.
    fn turn_data(&mut self, now: Instant, effects: &mut Effects) {
        let (Some(data), Some(dtls)) = (&mut self.data, &mut self.dtls) else { return };
        data.take_messages(now, self.participant_id, |message| effects.messages.push(message));
        if self.ice.selected().is_none() {
            self.data_due = Some(now + NO_PATH);
            return;
        }
        data.transmit(now, |packet| dtls.send(now, packet));
        self.data_due = data.poll_timeout(now);
        self.flush_dtls(effects);
    }

    /// Queues a message of another participant. It leaves in this endpoint's next turn, which is due at once.
    pub fn send_message(&mut self, now: Instant, message: &Arc<Message>) -> Delivery {
        let Some(data) = &mut self.data else { return Delivery::NoChannel };
        let delivery = data.send(now, message);
        self.data_due = data.poll_timeout(now);
        delivery
    }

    /// A reliable message for this client was lost on its way here.
    pub fn miss_message(&mut self, now: Instant) {
        if let Some(data) = &mut self.data {
            data.close_reliable(now);
            self.data_due = data.poll_timeout(now);
        }
    }

    /// What its data channels have done, and which are open.
    pub fn data_stats(&self) -> DataStats {
        let mut stats = DataStats { open: [0; 2], ..self.data_past };
        if let Some(data) = &self.data {
            stats += data.stats();
        }
        stats
    }
}
