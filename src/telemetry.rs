//! Logs to standard error, metrics to a Prometheus recorder.

use std::io::IsTerminal;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use common::broker::{Broker, topology};
use common::catalogue::Metric;
use common::connect::BrokerUrl;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry, fmt, reload};

use crate::config::{LogFormat, Role, Settings};
use crate::{otlp, process};

/// Buckets for everything that is measured in seconds: half a millisecond to ten seconds.
const SECONDS: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// How often what was measured is sorted into its buckets. Until then every single duration is kept.
const UPKEEP: Duration = Duration::from_secs(5);

/// How often somebody looks at the queues that belong to everyone.
const QUEUE_LOOKS: Duration = Duration::from_secs(10);

/// Libraries that would say too much: the DTLS one warns about every extension of a browser's ClientHello that it
/// does not know, a dozen lines for each join; the AMQP one logs the whole body of a returned message, SDP and
/// addresses included. Asked for by name in the filter, they speak.
const QUIET: [(&str, &str); 2] = [("rtc_dtls", "rtc_dtls=error"), ("lapin", "lapin=off")];

fn quieten(filter: EnvFilter, asked: &str) -> EnvFilter {
    QUIET.iter().filter(|(library, _)| !asked.contains(library)).fold(filter, |filter, (_, directive)| {
        filter.add_directive(directive.parse().expect("a valid directive"))
    })
}

/// What was installed for the process.
#[derive(Clone)]
pub struct Telemetry {
    metrics: PrometheusHandle,
    pub log: LogFilter,
}

impl Telemetry {
    /// Everything that is measured, in Prometheus' text format.
    pub fn scrape(&self) -> String {
        process::note();
        self.metrics.render()
    }
}

/// What is logged, changeable while the process runs.
#[derive(Clone)]
pub struct LogFilter {
    handle: reload::Handle<EnvFilter, Registry>,
    current: Arc<Mutex<String>>,
}

impl LogFilter {
    /// The filter as it was set.
    pub fn current(&self) -> String {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Logs by another filter from now on, until the process ends.
    ///
    /// # Errors
    /// In words, when it is none.
    pub fn set(&self, text: &str) -> Result<(), String> {
        let filter = EnvFilter::try_new(text).map_err(|error| error.to_string())?;
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        self.handle.reload(quieten(filter, text)).map_err(|error| error.to_string())?;
        text.clone_into(&mut current);
        Ok(())
    }
}

/// Installs logs and metrics for the process; call once.
pub fn install(settings: &Settings) -> Telemetry {
    let filter = EnvFilter::try_new(&settings.log).unwrap_or_else(|_| EnvFilter::new("info"));
    let (filter, handle) = reload::Layer::new(quieten(filter, &settings.log));
    let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    let registry = tracing_subscriber::registry().with(filter);
    match settings.log_format {
        LogFormat::Text => registry.with(lines).init(),
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).init(),
    }
    let builder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), SECONDS)
        .and_then(|builder| {
            builder.set_buckets_for_metric(Matcher::Full(FORWARDING.to_owned()), &forwarding())
        })
        .expect("the bucket lists are not empty");
    let recorder = builder.build_recorder();
    let metrics = recorder.handle();
    // Fails only when a recorder is there already, as in tests that start twice in one process.
    let _ = metrics::set_global_recorder(recorder);
    let current = Arc::new(Mutex::new(settings.log.clone()));
    Telemetry { metrics, log: LogFilter { handle, current } }
}

/// The histogram with buckets of its own.
const FORWARDING: &str = "switchyard_worker_forward_seconds";

fn forwarding() -> Vec<f64> {
    media_worker::media::FORWARD_BOUNDS_US.iter().map(|bound| *bound as f64 / 1e6).collect()
}

/// The metrics that a process shows which is this. With another broker the series of that one are there instead.
pub fn catalogue(role: Role) -> Vec<&'static [Metric]> {
    let api: &[&'static [Metric]] = if role == Role::Worker { &[] } else { &[rest_api::metrics::METRICS] };
    let worker: &[&'static [Metric]] =
        if role == Role::Api { &[] } else { &[media_worker::metrics::METRICS] };
    let all =
        [common::broker::metrics::METRICS, common::store::metered::METRICS, otlp::METRICS, process::METRICS];
    [api, worker, &all].concat()
}

/// Makes them known, so that what is counted is 0 from the first scrape on.
pub fn register(role: Role, broker: &BrokerUrl) {
    let broker = match broker {
        BrokerUrl::Embedded => "embedded",
        BrokerUrl::Rabbit(_) => "rabbitmq",
    };
    for metrics in catalogue(role) {
        common::catalogue::register(metrics, &[("broker", broker)]);
    }
}

/// Looks how many messages wait in the queues that belong to everyone, for as long as the process lives.
pub async fn watch_queues(broker: Arc<dyn Broker>) {
    let mut ticks = tokio::time::interval(QUEUE_LOOKS);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        for queue in [topology::WORKERS, topology::DEAD_LETTERS] {
            // While the broker is away, that is what the metrics say; the last figure stays.
            if let Ok(messages) = broker.waiting(queue).await {
                common::broker::metrics::queue_messages(queue, messages);
            }
        }
    }
}

/// Sorts what was measured into its buckets, for as long as the process lives. Without this only a scrape does it, and a
/// process that nobody scrapes would keep every duration that it ever measured.
pub async fn keep_up(telemetry: Telemetry) {
    let mut ticks = tokio::time::interval(UPKEEP);
    loop {
        ticks.tick().await;
        telemetry.metrics.run_upkeep();
    }
}
