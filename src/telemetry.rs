//! Logs to standard error, metrics to a Prometheus recorder.

use std::io::IsTerminal;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

use crate::config::{LogFormat, Settings};

/// Buckets for everything that is measured in seconds: half a millisecond to ten seconds.
const SECONDS: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Libraries that would say too much: the DTLS one warns about every extension of a browser's ClientHello that it
/// does not know, a dozen lines for each join; the AMQP one logs the whole body of a returned message, SDP and
/// addresses included. Asked for by name in the filter, they speak.
const QUIET: [(&str, &str); 2] = [("rtc_dtls", "rtc_dtls=error"), ("lapin", "lapin=off")];

fn quieten(filter: EnvFilter, asked: &str) -> EnvFilter {
    QUIET.iter().filter(|(library, _)| !asked.contains(library)).fold(filter, |filter, (_, directive)| {
        filter.add_directive(directive.parse().expect("a valid directive"))
    })
}

/// Installs both for the process; call once.
pub fn install(settings: &Settings) -> PrometheusHandle {
    let filter = EnvFilter::try_new(&settings.log).unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = tracing_subscriber::fmt()
        .with_env_filter(quieten(filter, &settings.log))
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match settings.log_format {
        LogFormat::Text => lines.init(),
        LogFormat::Json => lines.json().flatten_event(true).init(),
    }
    let builder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), SECONDS)
        .expect("the bucket list is not empty");
    let recorder = builder.build_recorder();
    let handle = recorder.handle();
    // Fails only when a recorder is there already, as in tests that start twice in one process.
    let _ = metrics::set_global_recorder(recorder);
    handle
}
