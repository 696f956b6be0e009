//! Spans for whoever looks at a trace (OpenTelemetry): what a request came to, over all processes that had a part in it.
//!
//! Nothing is recorded until [`install`] has been called, which the binary does when it is told where spans go (`src/otlp`).
//! Before that every function here is one look at a static, and so it is for what is not sampled. Ids go from process to
//! process as a W3C `traceparent`, which stands in commands anyway; within a process a span is that of the task
//! ([`Span::around`]).
//!
//! What a span says is chosen word by word where it begins: ids, names of commands, outcomes. No header, no body, no query,
//! no path of a request (a resource of WHIP has its sealed destination there) and no description ever stands in one.

use std::future::Future;
use std::sync::OnceLock;
use std::time::SystemTime;

use futures::future::Either;
use opentelemetry::Context;
pub use opentelemetry::KeyValue;
use opentelemetry::context::{FutureExt as _, WithContext};
use opentelemetry::global::{BoxedTracer, ObjectSafeTracer};
use opentelemetry::trace::{
    Span as _, SpanContext, SpanId, SpanKind, Status, TraceContextExt as _, TraceFlags, TraceId, TraceState,
    Tracer as _,
};

/// The broker and the store that are spoken to, as `messaging.system` and `db.system.name` call them.
#[derive(Debug, Clone, Copy)]
pub struct Systems {
    pub broker: &'static str,
    pub store: &'static str,
}

struct Installed {
    tracer: BoxedTracer,
    systems: Systems,
}

static INSTALLED: OnceLock<Installed> = OnceLock::new();

/// From now on spans are recorded, with this tracer. The first call counts.
pub fn install<T>(tracer: T, systems: Systems)
where
    T: ObjectSafeTracer + Send + Sync + 'static,
{
    let _ = INSTALLED.set(Installed { tracer: BoxedTracer::new(Box::new(tracer)), systems });
}

/// Whether spans are recorded at all.
pub fn is_on() -> bool {
    INSTALLED.get().is_some()
}

/// Whose part in a trace a span is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A request is answered.
    Server,
    /// A message is sent.
    Producer,
    /// … and handled.
    Consumer,
    /// The store is asked.
    Store,
    /// Anything within a process.
    Internal,
}

impl Kind {
    fn of_span(self) -> SpanKind {
        match self {
            Self::Server => SpanKind::Server,
            Self::Producer => SpanKind::Producer,
            Self::Consumer => SpanKind::Consumer,
            Self::Store => SpanKind::Client,
            Self::Internal => SpanKind::Internal,
        }
    }

    /// What every span of this kind says.
    fn attributes(self, systems: Systems) -> Vec<KeyValue> {
        match self {
            Self::Producer => vec![
                KeyValue::new("messaging.system", systems.broker),
                KeyValue::new("messaging.operation.type", "send"),
            ],
            Self::Consumer => vec![
                KeyValue::new("messaging.system", systems.broker),
                KeyValue::new("messaging.operation.type", "process"),
            ],
            Self::Store => vec![KeyValue::new("db.system.name", systems.store)],
            Self::Server | Self::Internal => Vec::new(),
        }
    }
}

/// A place in a trace that is recorded: what comes later can be put below it.
#[derive(Debug, Clone, PartialEq)]
pub struct Place(SpanContext);

impl Place {
    /// The span that this task is in. `None` when it is in none that is recorded.
    pub fn here() -> Option<Self> {
        INSTALLED.get()?;
        Context::map_current(|context| recorded(context.span().span_context()))
    }

    /// A span below this one that is over: from `start` to `end`.
    pub fn past<const N: usize>(
        &self,
        verb: &'static str,
        object: &str,
        (start, end): (SystemTime, SystemTime),
        attributes: [KeyValue; N],
        failure: Option<&'static str>,
    ) {
        let Some(Installed { tracer, .. }) = INSTALLED.get() else { return };
        let builder = tracer
            .span_builder(format!("{verb} {object}"))
            .with_kind(SpanKind::Internal)
            .with_start_time(start)
            .with_attributes(attributes);
        let parent = Context::new().with_remote_span_context(self.0.clone());
        let mut span = tracer.build_with_context(builder, &parent);
        if let Some(failure) = failure {
            span.set_status(Status::error(failure));
        }
        span.end_with_timestamp(end);
    }
}

fn recorded(context: &SpanContext) -> Option<Place> {
    (context.is_valid() && context.is_sampled()).then(|| Place(context.clone()))
}

/// A span that has begun, or nothing: spans are not recorded, or this trace is not. It ends when it is dropped.
#[must_use = "it ends when it is dropped"]
#[derive(Debug, Default)]
pub struct Span(Option<Context>);

impl Span {
    /// Begins a span below the one that a `traceparent` names; without one it begins a trace, which is sampled as configured.
    pub fn of(kind: Kind, verb: &'static str, object: &str, traceparent: Option<&str>) -> Self {
        let Some(installed) = INSTALLED.get() else { return Self::default() };
        match traceparent.map(read) {
            None => Self::begin(installed, kind, verb, object, &Context::new()),
            Some(Some(parent)) if parent.is_sampled() => {
                let parent = Context::new().with_remote_span_context(parent);
                Self::begin(installed, kind, verb, object, &parent)
            }
            Some(_) => Self::default(),
        }
    }

    /// Begins a span below the one that this task is in. Nothing when it is in none.
    pub fn below(kind: Kind, verb: &'static str, object: &str) -> Self {
        let Some(installed) = INSTALLED.get() else { return Self::default() };
        Context::map_current(|context| match recorded(context.span().span_context()) {
            Some(_) => Self::begin(installed, kind, verb, object, context),
            None => Self::default(),
        })
    }

    fn begin(installed: &Installed, kind: Kind, verb: &'static str, object: &str, parent: &Context) -> Self {
        let Installed { tracer, systems } = installed;
        let builder = tracer
            .span_builder(format!("{verb} {object}"))
            .with_kind(kind.of_span())
            .with_attributes(kind.attributes(*systems));
        let span = tracer.build_with_context(builder, parent);
        let is_recorded = recorded(span.span_context()).is_some();
        Self(is_recorded.then(|| parent.with_span(span)))
    }

    /// How the span is named to another process. `None`: it is not recorded.
    pub fn traceparent(&self) -> Option<String> {
        let context = self.0.as_ref()?.span().span_context().clone();
        Some(format!("00-{}-{}-01", context.trace_id(), context.span_id()))
    }

    /// Adds to what it says. Not called when nothing is recorded.
    pub fn say<const N: usize>(&self, attributes: impl FnOnce() -> [KeyValue; N]) {
        if let Some(context) = &self.0 {
            context.span().set_attributes(attributes());
        }
    }

    /// It came to nothing good: one word why.
    pub fn fail(&self, why: &'static str) {
        if let Some(context) = &self.0 {
            context.span().set_attribute(KeyValue::new("error.type", why));
            context.span().set_status(Status::error(""));
        }
    }

    /// Does something within this span: what is begun [`below`](Self::below) is below this one.
    pub fn around<F: Future>(&self, work: F) -> Either<WithContext<F>, F> {
        match &self.0 {
            Some(context) => Either::Left(work.with_context(context.clone())),
            None => Either::Right(work),
        }
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        // Others may still have it as what they are below of.
        if let Some(context) = &self.0 {
            context.span().end();
        }
    }
}

/// Does something that outlives the span that this task is in, below that span.
pub fn carried<F: Future>(work: F) -> Either<WithContext<F>, F> {
    match INSTALLED.get() {
        Some(_) => Either::Left(work.with_context(Context::current())),
        None => Either::Right(work),
    }
}

/// A `traceparent` (W3C Trace Context, section 3.2) as a place; `None` when it is none.
fn read(traceparent: &str) -> Option<SpanContext> {
    let mut parts = traceparent.split('-').skip(1);
    let (trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?);
    let context = SpanContext::new(
        TraceId::from_hex(trace).ok()?,
        SpanId::from_hex(span).ok()?,
        TraceFlags::new(u8::from_str_radix(flags, 16).ok()?),
        true,
        TraceState::NONE,
    );
    context.is_valid().then_some(context)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_is_read_or_refused() {
        let read = |flags| read(&format!("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-{flags}"));
        let (sampled, not) = (read("01").unwrap(), read("00").unwrap());
        assert_eq!(sampled.trace_id().to_string(), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(sampled.span_id().to_string(), "b7ad6b7169203331");
        assert!(sampled.is_sampled() && !not.is_sampled());
        for none in ["", "00", "00-x-y-01", "00-00000000000000000000000000000000-b7ad6b7169203331-01"] {
            assert_eq!(super::read(none), None, "{none}");
        }
    }

    #[tokio::test]
    async fn without_a_tracer_nothing_is_recorded() {
        let sampled = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let span = Span::of(Kind::Server, "GET", "/", Some(sampled));
        assert_eq!((span.traceparent(), is_on()), (None, false));
        span.say::<1>(|| unreachable!("nobody asks what it says"));
        assert_eq!(span.around(async { Place::here() }).await, None);
        assert_eq!(carried(async { 7 }).await, 7);
    }
}
