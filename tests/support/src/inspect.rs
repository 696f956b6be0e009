//! What RabbitMQ holds: names through its management API, readers by asking the queue itself.

use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use lapin::{Connection, ConnectionProperties};
use serde_json::Value;

use crate::services::{Location, split_credentials};

/// A look into one virtual host.
pub struct BrokerView {
    location: Location,
    http: reqwest::Client,
}

impl BrokerView {
    pub fn new(location: &Location) -> Self {
        Self { location: location.clone(), http: reqwest::Client::new() }
    }

    /// The names of all queues.
    ///
    /// # Errors
    /// In words, when it cannot be asked.
    pub async fn queues(&self) -> Result<Vec<String>, String> {
        self.names("queues").await
    }

    /// The names of all exchanges that somebody declared.
    ///
    /// # Errors
    /// In words, when it cannot be asked.
    pub async fn exchanges(&self) -> Result<Vec<String>, String> {
        let mut names = self.names("exchanges").await?;
        names.retain(|name| !name.is_empty() && !name.starts_with("amq."));
        Ok(names)
    }

    async fn names(&self, what: &str) -> Result<Vec<String>, String> {
        let (user, password, base) = split_credentials(&self.location.admin);
        let url = format!("{base}/api/{what}/{}?disable_stats=true", self.location.vhost);
        let failed = |error: reqwest::Error| error.to_string();
        let response = self.http.get(url).basic_auth(user, Some(password)).send().await.map_err(failed)?;
        let list: Value = response.error_for_status().map_err(failed)?.json().await.map_err(failed)?;
        let names = list.as_array().ok_or("not a list")?.iter();
        Ok(names.filter_map(|entry| Some(entry["name"].as_str()?.to_owned())).collect())
    }

    /// How many read each of these queues, and how many messages wait there; `None` for one that is not there.
    ///
    /// # Errors
    /// In words, when it cannot be asked.
    pub async fn look_at<'a>(
        &self,
        queues: impl IntoIterator<Item = &'a str>,
    ) -> Result<Vec<Option<QueueView>>, String> {
        let failed = |error: lapin::Error| error.to_string();
        let connection = Connection::connect(&self.location.broker, ConnectionProperties::default());
        let connection = connection.await.map_err(failed)?;
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let mut views = Vec::new();
        let mut channel = connection.create_channel().await.map_err(failed)?;
        for queue in queues {
            match channel.queue_declare(queue.into(), passive, FieldTable::default()).await {
                Ok(found) => {
                    let (readers, messages) = (found.consumer_count(), found.message_count());
                    views.push(Some(QueueView { readers, messages }));
                }
                // The answer to a missing queue is the end of the channel.
                Err(_) => {
                    views.push(None);
                    channel = connection.create_channel().await.map_err(failed)?;
                }
            }
        }
        let _ = connection.close(200, "done".into()).await;
        Ok(views)
    }
}

/// One queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueView {
    pub readers: u32,
    /// Ready to be delivered.
    pub messages: u32,
}
