//! A collector of traces (OTLP over HTTP), as an operator's is one: it notes what comes, and can be made to hang.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode as Outcome;
use prost::Message as _;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::eventually::eventually;

/// One span, and the process that it is of.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    pub name: String,
    pub kind: SpanKind,
    /// In hexadecimal digits, like the other ids.
    pub trace: String,
    pub id: String,
    /// Empty when it has none.
    pub parent: String,
    /// `service.name` of its process, and which of them it is.
    pub service: String,
    pub instance: String,
    /// In nanoseconds since 1970.
    pub start: u64,
    pub end: u64,
    pub failed: bool,
    /// As text.
    pub attributes: BTreeMap<String, String>,
}

#[derive(Default)]
struct Notes {
    hangs: bool,
    spans: Vec<Span>,
    /// Everything that came, as it came.
    bodies: Vec<Bytes>,
    requests: usize,
}

/// A real HTTP server on the loopback interface.
pub struct Collector {
    address: SocketAddr,
    notes: Arc<Mutex<Notes>>,
    server: JoinHandle<()>,
}

impl Collector {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let notes = Arc::new(Mutex::new(Notes::default()));
        let router = Router::new().route("/v1/traces", post(take)).with_state(notes.clone());
        let server = tokio::spawn(async move {
            axum::serve(listener, router).await.expect("it serves until it is aborted");
        });
        Self { address, notes, server }
    }

    /// What `--otlp-endpoint` gets.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on it takes requests and never answers.
    pub fn hang(&self) {
        self.lock().hangs = true;
    }

    /// How many requests have come, answered or not.
    pub fn requests(&self) -> usize {
        self.lock().requests
    }

    pub fn spans(&self) -> Vec<Span> {
        self.lock().spans.clone()
    }

    /// All spans of a trace so far.
    pub fn trace(&self, trace: &str) -> Trace {
        Trace(self.spans().into_iter().filter(|span| span.trace == trace).collect())
    }

    /// Waits until a span like this has come.
    pub async fn span(&self, what: &str, is_it: impl Fn(&Span) -> bool) -> Span {
        eventually(what, || async {
            let spans = self.spans();
            let names: BTreeSet<_> = spans.iter().map(|span| span.name.clone()).collect();
            spans.into_iter().find(&is_it).ok_or_else(|| format!("there is only {names:?}"))
        })
        .await
    }

    /// Waits until a trace has spans of all these names, and all of them but one are below another: each process sends its own when it
    /// likes.
    pub async fn whole(&self, trace: &str, names: &[&str]) -> Trace {
        eventually("the trace is whole", || async {
            let whole = self.trace(trace);
            let missing: Vec<_> = names.iter().filter(|name| whole.named(name).next().is_none()).collect();
            match missing.is_empty() && whole.roots() == 1 {
                true => Ok(whole),
                false => Err(format!("{missing:?} not in {whole:#?}")),
            }
        })
        .await
    }

    /// Whether this stands anywhere in what came.
    pub fn has_read(&self, text: &str) -> bool {
        let notes = self.lock();
        let mut windows = notes.bodies.iter().flat_map(|body| body.windows(text.len()));
        windows.any(|window| window == text.as_bytes())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Notes> {
        self.notes.lock().expect("no test panics in here")
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// The spans of one trace.
#[derive(Debug, Clone)]
pub struct Trace(pub Vec<Span>);

impl Trace {
    pub fn named<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a Span> {
        self.0.iter().filter(move |span| span.name == name)
    }

    /// The only span of this name.
    ///
    /// # Panics
    /// When there is none, or another.
    #[track_caller]
    pub fn one(&self, name: &str) -> &Span {
        let found: Vec<_> = self.named(name).collect();
        assert_eq!(found.len(), 1, "{name}: {self:#?}");
        found[0]
    }

    /// How many are below none that is in this trace.
    fn roots(&self) -> usize {
        self.0.iter().filter(|span| self.parent(span).is_none()).count()
    }

    /// What a span is below of, when that is in this trace.
    pub fn parent(&self, span: &Span) -> Option<&Span> {
        self.0.iter().find(|other| other.id == span.parent)
    }
}

async fn take(State(notes): State<Arc<Mutex<Notes>>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let hangs = {
        let mut notes = notes.lock().expect("no test panics in here");
        notes.requests += 1;
        notes.hangs
    };
    if hangs {
        std::future::pending::<()>().await;
    }
    assert_eq!(headers["content-type"], "application/x-protobuf");
    let request = ExportTraceServiceRequest::decode(body.clone()).expect("OTLP");
    let mut notes = notes.lock().expect("no test panics in here");
    notes.bodies.push(body);
    for of_process in request.resource_spans {
        let process = read(of_process.resource.unwrap_or_default().attributes);
        let attribute = |name: &str| process.get(name).cloned().unwrap_or_default();
        for span in of_process.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            notes.spans.push(Span {
                kind: span.kind(),
                failed: span.status.as_ref().is_some_and(|status| status.code() == Outcome::Error),
                name: span.name,
                trace: hex(&span.trace_id),
                id: hex(&span.span_id),
                parent: hex(&span.parent_span_id),
                service: attribute("service.name"),
                instance: attribute("service.instance.id"),
                start: span.start_time_unix_nano,
                end: span.end_time_unix_nano,
                attributes: read(span.attributes),
            });
        }
    }
    StatusCode::OK
}

fn read(attributes: Vec<KeyValue>) -> BTreeMap<String, String> {
    let text = |value: Option<AnyValue>| match value.and_then(|value| value.value) {
        Some(any_value::Value::StringValue(text)) => text,
        Some(any_value::Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    };
    attributes.into_iter().map(|attribute| (attribute.key, text(attribute.value))).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
