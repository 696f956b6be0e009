//! Where the tests' RabbitMQ and MongoDB are, and a place of one's own on them.
//!
//! Every deployment gets a virtual host and a database to itself: two deployments in one test run must not compete
//! for each other's commands.

use reqwest::StatusCode;
use uuid::Uuid;

/// Where a deployment's broker and store are.
#[derive(Debug, Clone)]
pub struct Location {
    /// `amqp://…/<virtual host>`
    pub broker: String,
    /// `mongodb://…/<database>?…`
    pub store: String,
    /// RabbitMQ's management API, with its credentials.
    pub admin: String,
    /// As it stands in an address.
    pub vhost: String,
}

/// A virtual host and a database of a deployment's own. The virtual host goes when this is dropped.
pub struct Services(Location);

fn required(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| {
        panic!(
            "{name} is not set: these tests need RabbitMQ and MongoDB. `tests/run cluster` starts both; tests/README.md \
             says what to set for servers of your own"
        )
    })
}

impl Services {
    /// # Panics
    /// When the environment names no servers, or they cannot be used.
    pub async fn claim() -> Self {
        let broker = required("SWITCHYARD_TEST_BROKER");
        let admin = required("SWITCHYARD_TEST_BROKER_ADMIN");
        let store = required("SWITCHYARD_TEST_STORE");
        let name = format!("test-{}", Uuid::now_v7().simple());
        let (user, password, base) = split_credentials(&admin);
        let http = reqwest::Client::new();
        let made = http
            .put(format!("{base}/api/vhosts/{name}"))
            .basic_auth(&user, Some(&password))
            .send()
            .await
            .expect("RabbitMQ's management answers");
        assert_eq!(made.status(), StatusCode::CREATED, "a virtual host can be made");
        let (broker, store) = (with_path(&broker, &name), with_path(&store, &name));
        Self(Location { broker, store, admin, vhost: name })
    }

    pub fn location(&self) -> Location {
        self.0.clone()
    }
}

impl Drop for Services {
    fn drop(&mut self) {
        let (user, password, base) = split_credentials(&self.0.admin);
        let vhost = format!("{base}/api/vhosts/{}", self.0.vhost);
        // The test's runtime may be gone already: a thread of its own asks. Failing to clean up fails no test.
        let _ = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let _ = reqwest::Client::new().delete(vhost).basic_auth(user, Some(password)).send().await;
            });
            Ok::<_, std::io::Error>(())
        })
        .join();
    }
}

/// `http://user:password@host` as its parts; the last is the URL without them.
pub(crate) fn split_credentials(url: &str) -> (String, String, String) {
    let (scheme, rest) = url.split_once("://").expect("SWITCHYARD_TEST_BROKER_ADMIN is a URL");
    let (user, password, host) = match rest.split_once('@') {
        Some((credentials, host)) => {
            let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
            (user, password, host)
        }
        None => ("guest", "guest", rest),
    };
    (user.to_owned(), password.to_owned(), format!("{scheme}://{}", host.trim_end_matches('/')))
}

/// The URL with its path replaced, its query kept.
fn with_path(url: &str, path: &str) -> String {
    let (base, query) = url.split_once('?').map_or((url, None), |(base, query)| (base, Some(query)));
    let (scheme, rest) = base.split_once("://").expect("a URL has a scheme");
    let host = rest.split('/').next().unwrap_or(rest);
    match query {
        Some(query) => format!("{scheme}://{host}/{path}?{query}"),
        None => format!("{scheme}://{host}/{path}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_is_replaced_and_the_query_kept() {
        assert_eq!(with_path("amqp://u:p@h:1/%2f", "x"), "amqp://u:p@h:1/x");
        assert_eq!(with_path("mongodb://h:1/?replicaSet=r", "x"), "mongodb://h:1/x?replicaSet=r");
        assert_eq!(with_path("mongodb://h:1,h:2/old?a=b", "x"), "mongodb://h:1,h:2/x?a=b");
    }

    #[test]
    fn credentials_are_taken_out_of_the_address() {
        let parts = split_credentials("http://u:p@h:1/");
        assert_eq!(parts, ("u".to_owned(), "p".to_owned(), "http://h:1".to_owned()));
    }
}
