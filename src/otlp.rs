//! Sends recorded spans ([`common::spans`]) to a collector, over OTLP, beside the work and never in its way.
//!
//! ```text
//!   span ends ─▶ bounded queue ─▶ a thread: batches ─▶ HTTP (the client of webhooks) ─▶ collector
//!                  full: counted drop                     fails: tried again for 10 s, then a counted loss
//! ```
//!
//! Encoding, batches and tries are OpenTelemetry's own. What is ours is the count of what waits, so that each span that is lost
//! is in a metric, and the HTTP client, so that there is one of that (and of TLS) in the program.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use common::catalogue::Metric;
use common::catalogue::Values::Listed;
use common::connect::{BrokerUrl, StoreUrl};
use common::spans::{self, KeyValue, Systems};
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full, Limited};
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{
    Protocol, SpanExporter as OtlpExporter, WithExportConfig as _, WithHttpConfig as _,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracerProvider, Span, SpanData, SpanExporter,
    SpanProcessor,
};
use rest_api::outgoing::{self, Client};
use tokio::runtime::Handle;

use crate::config::{Otlp, Role, Settings};

/// Spans that wait or are on their way; at some 500 bytes each a few MB.
const QUEUE: usize = 4_096;
/// Spans that are sent together.
const BATCH: usize = 512;
/// How long a span waits for others at most.
const DELAY: Duration = Duration::from_secs(1);
/// Of one try.
const PATIENCE: Duration = Duration::from_secs(5);
/// Of all tries of one batch.
const ALL_TRIES: Duration = Duration::from_secs(10);
/// How long the end of the process waits for its last spans to be sent.
const LAST_PATIENCE: Duration = Duration::from_secs(3);
/// What is read of an answer.
const MAX_ANSWER: usize = 64 * 1024;

/// What becomes of spans. All 0 where none are recorded.
pub const METRICS: &[Metric] = &[Metric::counter(
    "switchyard_trace_spans_total",
    &[("outcome", Listed(&["exported", "queue_full", "failed"]))],
    "recorded spans: taken by the collector, dropped because too many waited for it, or lost because it did not take them",
)];

fn count(outcome: &'static str, spans: usize) {
    metrics::counter!("switchyard_trace_spans_total", "outcome" => outcome).increment(spans as u64);
}

/// Why no traces can be sent.
#[derive(Debug, thiserror::Error)]
pub enum OtlpError {
    #[error(transparent)]
    Client(#[from] outgoing::ClientError),
    #[error("{0}")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
}

/// The running exporter.
pub struct Exporting(SdkTracerProvider);

impl Exporting {
    /// Records spans from now on, and sends them. Call it once, within the runtime that does the sending.
    ///
    /// # Errors
    /// When the collector wants https and the machine trusts nobody, or OpenTelemetry's variables ask for what is not there.
    pub fn start(role: Role, settings: &Settings, to: &Otlp) -> Result<Self, OtlpError> {
        let sender =
            Sender { client: outgoing::client(to.url.starts_with("https:"))?, runtime: Handle::current() };
        let exporter = OtlpExporter::builder()
            .with_http()
            .with_http_client(sender)
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(&to.url)
            .with_timeout(ALL_TRIES)
            .build()?;
        let waiting = Arc::new(AtomicUsize::new(0));
        let exporter = Counting { exporter, waiting: waiting.clone(), is_failing: AtomicBool::new(false) };
        let batches = BatchConfigBuilder::default()
            .with_max_queue_size(QUEUE)
            .with_max_export_batch_size(BATCH)
            .with_scheduled_delay(DELAY)
            .build();
        let processor = BatchSpanProcessor::builder(exporter).with_batch_config(batches).build();
        let provider = SdkTracerProvider::builder()
            .with_span_processor(Bounded { next: processor, waiting })
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(to.sample_ratio))))
            .with_resource(resource(role))
            .build();
        let systems = Systems {
            broker: match settings.broker {
                BrokerUrl::Embedded => "embedded",
                BrokerUrl::Rabbit(_) => "rabbitmq",
            },
            store: match settings.store {
                StoreUrl::Embedded => "embedded",
                StoreUrl::Mongo(_) => "mongodb",
            },
        };
        spans::install(provider.tracer("switchyard"), systems);
        tracing::info!(url = to.url, sample_ratio = to.sample_ratio, "traces are recorded and sent");
        Ok(Self(provider))
    }

    /// Sends what waits, for a moment; what is left then is lost.
    pub async fn finish(self) {
        // It blocks, and what it waits for is done by this runtime.
        let done = tokio::task::spawn_blocking(move || self.0.shutdown_with_timeout(LAST_PATIENCE)).await;
        if !matches!(done, Ok(Ok(()))) {
            tracing::debug!("the last spans were not sent");
        }
    }
}

/// Who sends: with what `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` say.
fn resource(role: Role) -> Resource {
    let name = match role {
        Role::AllInOne => "switchyard",
        Role::Api => "switchyard-api",
        Role::Worker => "switchyard-worker",
    };
    let resource = Resource::builder().with_attributes([
        KeyValue::new("service.namespace", "switchyard"),
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("service.instance.id", uuid::Uuid::new_v4().to_string()),
    ]);
    let is_named = std::env::var_os("OTEL_SERVICE_NAME").is_some_and(|name| !name.is_empty());
    if is_named { resource.build() } else { resource.with_service_name(name).build() }
}

/// Lets no more spans wait than [`QUEUE`], and counts those that it turns away.
#[derive(Debug)]
struct Bounded<P> {
    next: P,
    /// Queued or on their way.
    waiting: Arc<AtomicUsize>,
}

impl<P: SpanProcessor> SpanProcessor for Bounded<P> {
    fn on_start(&self, span: &mut Span, context: &opentelemetry::Context) {
        self.next.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= QUEUE {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            count("queue_full", 1);
            return;
        }
        self.next.on_end(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.next.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.next.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.next.set_resource(resource);
    }
}

/// Counts what became of each batch, and says once when the collector stops or begins to take them.
#[derive(Debug)]
struct Counting<E> {
    exporter: E,
    waiting: Arc<AtomicUsize>,
    is_failing: AtomicBool,
}

impl<E: SpanExporter> SpanExporter for Counting<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let result = self.exporter.export(batch).await;
        self.waiting.fetch_sub(spans, Ordering::Relaxed);
        count(if result.is_ok() { "exported" } else { "failed" }, spans);
        let was_failing = self.is_failing.swap(result.is_err(), Ordering::Relaxed);
        match &result {
            Err(error) if !was_failing => {
                tracing::warn!(%error, "the collector takes no traces; they are lost until it does");
            }
            Ok(()) if was_failing => tracing::info!("the collector takes traces again"),
            _ => {}
        }
        result
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

/// Sends on our runtime, whatever thread asks for it.
struct Sender {
    client: Client,
    runtime: Handle,
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").finish_non_exhaustive()
    }
}

#[async_trait]
impl HttpClient for Sender {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = self.client.clone();
        let exchange = async move {
            let response = client
                .request(request.map(Full::new))
                .await
                .map_err(|error| HttpError::from(outgoing::reason(&error)))?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, MAX_ANSWER).collect().await?.to_bytes();
            Ok::<_, HttpError>(Response::from_parts(head, body))
        };
        // The timer is made where it runs: the thread that asks is none of the runtime's.
        let sending = self.runtime.spawn(async { tokio::time::timeout(PATIENCE, exchange).await });
        match sending.await {
            Ok(Ok(answered)) => answered,
            Ok(Err(_)) => Err(format!("no answer within {} s", PATIENCE.as_secs()).into()),
            // The runtime has ended.
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;
    use opentelemetry::trace::Tracer as _;

    use super::*;

    /// Takes spans and lets none go.
    #[derive(Debug, Default)]
    struct Stuck(Arc<AtomicUsize>);

    impl SpanProcessor for Stuck {
        fn on_start(&self, _: &mut Span, _: &opentelemetry::Context) {}

        fn on_end(&self, _: SpanData) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }

        fn force_flush(&self) -> OTelSdkResult {
            Ok(())
        }

        fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
            Ok(())
        }
    }

    /// Fails as long as it is told to.
    #[derive(Debug, Default)]
    struct Failing(AtomicBool);

    impl SpanExporter for Failing {
        async fn export(&self, _: Vec<SpanData>) -> OTelSdkResult {
            match self.0.load(Ordering::Relaxed) {
                true => Err(opentelemetry_sdk::error::OTelSdkError::InternalFailure("no".to_owned())),
                false => Ok(()),
            }
        }
    }

    fn counted(page: &str, outcome: &str) -> String {
        let series = format!("switchyard_trace_spans_total{{outcome=\"{outcome}\"}} ");
        page.lines().find_map(|line| line.strip_prefix(&series)).unwrap_or("nothing").to_owned()
    }

    #[tokio::test]
    async fn what_the_queue_has_no_room_for_is_dropped_and_counted_and_room_comes_back() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let page = recorder.handle();
        let _local = metrics::set_default_local_recorder(&recorder);
        let (taken, waiting) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let bounded = Bounded { next: Stuck(taken.clone()), waiting: waiting.clone() };
        let provider = SdkTracerProvider::builder().with_span_processor(bounded).build();
        let tracer = provider.tracer("test");
        let end_some = |number: usize| (0..number).for_each(|_| drop(tracer.start("span")));
        end_some(QUEUE + 3);
        assert_eq!(
            (taken.load(Ordering::Relaxed), counted(&page.render(), "queue_full")),
            (QUEUE, "3".to_owned())
        );

        let exporter = Counting {
            exporter: Failing(AtomicBool::new(true)),
            waiting: waiting.clone(),
            is_failing: AtomicBool::new(false),
        };
        assert!(exporter.export(Vec::new()).await.is_err());
        exporter.exporter.0.store(false, Ordering::Relaxed);
        assert!(exporter.export(Vec::new()).await.is_ok());
        assert!(!exporter.is_failing.load(Ordering::Relaxed));
        waiting.fetch_sub(2, Ordering::Relaxed);
        end_some(3);
        assert_eq!(counted(&page.render(), "queue_full"), "4");
    }
}
