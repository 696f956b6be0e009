//! URL scheme to implementation; the only place that names concrete back ends.

use std::sync::Arc;

use crate::broker::embedded::EmbeddedBroker;
use crate::broker::rabbitmq::RabbitBroker;
use crate::broker::{Broker, BrokerResult};
use crate::store::embedded::EmbeddedStore;
use crate::store::metered::Metered;
use crate::store::mongodb::MongoStore;
use crate::store::{Store, StoreResult};

/// Which broker a URL selects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BrokerUrl {
    /// `embedded:`: inside this process.
    Embedded,
    /// `amqp://` or `amqps://`.
    Rabbit(String),
}

/// Which store a URL selects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreUrl {
    /// `embedded:`: inside this process.
    Embedded,
    /// `mongodb://` or `mongodb+srv://`.
    Mongo(String),
}

/// A URL whose scheme no back end has. Names the scheme only: URLs carry passwords.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown scheme {scheme:?}: expected {expected}")]
pub struct UnknownScheme {
    scheme: String,
    expected: &'static str,
}

impl std::str::FromStr for BrokerUrl {
    type Err = UnknownScheme;

    fn from_str(url: &str) -> Result<Self, UnknownScheme> {
        match scheme(url) {
            "embedded" => Ok(Self::Embedded),
            "amqp" | "amqps" => Ok(Self::Rabbit(url.to_owned())),
            other => {
                Err(UnknownScheme { scheme: other.to_owned(), expected: "embedded:, amqp:// or amqps://" })
            }
        }
    }
}

impl std::str::FromStr for StoreUrl {
    type Err = UnknownScheme;

    fn from_str(url: &str) -> Result<Self, UnknownScheme> {
        match scheme(url) {
            "embedded" => Ok(Self::Embedded),
            "mongodb" | "mongodb+srv" => Ok(Self::Mongo(url.to_owned())),
            other => Err(UnknownScheme {
                scheme: other.to_owned(),
                expected: "embedded:, mongodb:// or mongodb+srv://",
            }),
        }
    }
}

fn scheme(url: &str) -> &str {
    url.split_once(':').map_or("", |(scheme, _)| scheme)
}

/// Opens the broker. Fails when it is not reachable now; once open it reconnects by itself.
pub async fn broker(url: &BrokerUrl) -> BrokerResult<Arc<dyn Broker>> {
    match url {
        BrokerUrl::Embedded => Ok(Arc::new(EmbeddedBroker::new())),
        BrokerUrl::Rabbit(url) => Ok(Arc::new(RabbitBroker::connect(url).await?)),
    }
}

/// Opens the store, counting its calls, and makes its indexes. Fails when it is not reachable now.
pub async fn store(url: &StoreUrl) -> StoreResult<Arc<dyn Store>> {
    match url {
        StoreUrl::Embedded => Ok(Arc::new(Metered::new(EmbeddedStore::new()))),
        StoreUrl::Mongo(url) => Ok(Arc::new(Metered::new(MongoStore::connect(url).await?))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scheme_selects_the_back_end() {
        assert_eq!("embedded:".parse(), Ok(BrokerUrl::Embedded));
        assert_eq!("amqp://h".parse(), Ok(BrokerUrl::Rabbit("amqp://h".to_owned())));
        assert_eq!("mongodb+srv://h".parse(), Ok(StoreUrl::Mongo("mongodb+srv://h".to_owned())));
    }

    #[test]
    fn an_unknown_scheme_is_refused_without_repeating_the_password() {
        let refused = "redis://user:secret@host".parse::<BrokerUrl>().unwrap_err().to_string();
        assert!(refused.contains("redis") && !refused.contains("secret"), "{refused}");
    }
}
