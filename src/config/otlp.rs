//! Where traces go, by our own names or by OpenTelemetry's.

use http::Uri;

use super::source::Source;
use super::{ConfigError, number, refuse};

/// What the path of a collector for traces ends in.
const TRACES: &str = "/v1/traces";

/// A collector, and how much it gets.
#[derive(Debug, Clone, PartialEq)]
pub struct Otlp {
    /// With the path for traces.
    pub url: String,
    /// Of the traces that begin here, 0 to 1.
    pub sample_ratio: f64,
}

/// The settings, and where they are silent what OpenTelemetry's own environment variables say: what is in the environment beats
/// a file, whatever its name.
///
/// # Errors
/// When they ask for what is not spoken here (gRPC).
pub(super) fn with_standard_names(
    mut source: Source,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Source, ConfigError> {
    let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
    if variable("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
        source.otlp_endpoint = Some("off".to_owned());
    }
    if source.otlp_endpoint.is_none() {
        let of_traces = variable("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT");
        source.otlp_endpoint = of_traces.or_else(|| variable("OTEL_EXPORTER_OTLP_ENDPOINT"));
        let protocol = variable("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL")
            .or_else(|| variable("OTEL_EXPORTER_OTLP_PROTOCOL"));
        if source.otlp_endpoint.is_some() && protocol.as_deref() == Some("grpc") {
            let why = "OTEL_EXPORTER_OTLP_PROTOCOL is grpc: http/protobuf is spoken here, for which collectors have port 4318";
            return Err(refuse("otlp_endpoint", why));
        }
    }
    if source.otlp_sample_ratio.is_none() {
        let sampler = variable("OTEL_TRACES_SAMPLER");
        source.otlp_sample_ratio =
            match sampler.as_deref().map(|name| name.trim_start_matches("parentbased_")) {
                Some("always_on") => Some("1".to_owned()),
                Some("always_off") => Some("0".to_owned()),
                Some("traceidratio") => variable("OTEL_TRACES_SAMPLER_ARG"),
                _ => None,
            };
    }
    Ok(source)
}

/// `None`: no traces.
pub(super) fn check(source: &Source) -> Result<Option<Otlp>, ConfigError> {
    let sample_ratio = number("otlp_sample_ratio", source.otlp_sample_ratio.as_deref(), 0.0..=1.0, 1.0)?;
    let Some(text) = source.otlp_endpoint.as_deref().filter(|text| *text != "off") else { return Ok(None) };
    let uri: Uri =
        text.parse().map_err(|_| refuse("otlp_endpoint", "not a URL like http://collector:4318, nor off"))?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err(refuse("otlp_endpoint", "expected http://, https:// or off"));
    }
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) || uri.query().is_some() {
        let why = "credentials belong into OTEL_EXPORTER_OTLP_HEADERS, and a query nowhere";
        return Err(refuse("otlp_endpoint", why));
    }
    let base = text.trim_end_matches('/');
    let url = if base.ends_with(TRACES) { base.to_owned() } else { format!("{base}{TRACES}") };
    Ok(Some(Otlp { url, sample_ratio }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(ours: Source, variables: &[(&str, &str)]) -> Result<Option<Otlp>, ConfigError> {
        let variable = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        check(&with_standard_names(ours, variable)?)
    }

    fn ours(endpoint: &str) -> Source {
        Source { otlp_endpoint: Some(endpoint.to_owned()), ..Source::default() }
    }

    #[test]
    fn traces_go_where_either_name_says_and_nowhere_by_themselves() {
        let to = |url: &str, sample_ratio| Ok(Some(Otlp { url: url.to_owned(), sample_ratio }));
        assert_eq!(read(Source::default(), &[]), Ok(None));
        assert_eq!(read(ours("http://c:4318/"), &[]), to("http://c:4318/v1/traces", 1.0));
        assert_eq!(read(ours("https://c/x/v1/traces"), &[]), to("https://c/x/v1/traces", 1.0));
        let standard = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://o:4318");
        assert_eq!(read(Source::default(), &[standard]), to("http://o:4318/v1/traces", 1.0));
        assert_eq!(read(ours("http://c:4318"), &[standard]), to("http://c:4318/v1/traces", 1.0));
        let of_traces = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://t:1/v1/traces");
        assert_eq!(read(Source::default(), &[standard, of_traces]), to("http://t:1/v1/traces", 1.0));
        let ratio =
            [("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", "0.25")];
        assert_eq!(read(ours("http://c"), &ratio), to("http://c/v1/traces", 0.25));
    }

    #[test]
    fn traces_are_turned_off_by_either_name_and_grpc_is_refused() {
        assert_eq!(read(ours("off"), &[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://o")]), Ok(None));
        assert_eq!(read(ours("http://c"), &[("OTEL_SDK_DISABLED", "true")]), Ok(None));
        let grpc =
            [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://o:4317"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")];
        assert_eq!(read(Source::default(), &grpc).unwrap_err().setting, "otlp_endpoint");
    }

    #[test]
    fn a_refused_endpoint_is_not_repeated() {
        let refused = read(ours("https://user:hidden@c"), &[]).unwrap_err();
        assert!(!refused.to_string().contains("hidden"), "{refused}");
    }
}
