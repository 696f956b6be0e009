//! What a metric is: its name, kind, labels and meaning, in one place for the code, the scrape and `docs/METRICS.md`.
//!
//! Every component has a list of its own (`METRICS` in its `metrics.rs`). [`register`] makes them known to the recorder
//! at the start of a process, so that a counter is 0 in the first scrape and not missing: a rate over what was missing
//! does not show its first step, and an alert on it never fires.

/// Of what kind a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Kind {
    /// As Prometheus calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// Which values a label has. Never any that come from outside: every one is a series for the monitoring to keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Values {
    /// These and no others.
    Listed(&'static [&'static str]),
    /// As many as the code has of what is named here.
    Named(&'static str),
}

/// One metric.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    pub name: &'static str,
    pub kind: Kind,
    pub labels: &'static [(&'static str, Values)],
    /// What it counts or measures, for people.
    pub help: &'static str,
}

impl Metric {
    pub const fn counter(
        name: &'static str,
        labels: &'static [(&'static str, Values)],
        help: &'static str,
    ) -> Self {
        Self { name, kind: Kind::Counter, labels, help }
    }

    pub const fn gauge(
        name: &'static str,
        labels: &'static [(&'static str, Values)],
        help: &'static str,
    ) -> Self {
        Self { name, kind: Kind::Gauge, labels, help }
    }

    pub const fn histogram(
        name: &'static str,
        labels: &'static [(&'static str, Values)],
        help: &'static str,
    ) -> Self {
        Self { name, kind: Kind::Histogram, labels, help }
    }

    /// Its row in the table of `docs/METRICS.md`.
    pub fn row(&self) -> String {
        let label = |(name, values): &(&str, Values)| match values {
            Values::Listed(values) => format!("`{name}`: `{}`", values.join("` `")),
            Values::Named(what) => format!("`{name}`: {what}"),
        };
        let labels: Vec<String> = self.labels.iter().map(label).collect();
        format!("| `{}` | {} | {} | {} |", self.name, self.kind.name(), labels.join("; "), self.help)
    }

    /// Every combination of labels, when all their values are listed.
    fn series(&self, fixed: &[(&'static str, &'static str)]) -> Option<Vec<Labels>> {
        let mut all = vec![Vec::new()];
        for (name, values) in self.labels {
            let known = fixed.iter().find(|(label, _)| label == name).map(|(_, value)| *value);
            let values = match (&known, values) {
                (Some(value), _) => std::slice::from_ref(value),
                (None, Values::Listed(values)) => *values,
                (None, Values::Named(_)) => return None,
            };
            let with =
                |known: &Labels, value| known.iter().copied().chain([(*name, value)]).collect::<Labels>();
            all = all.iter().flat_map(|known| values.iter().map(|value| with(known, *value))).collect();
        }
        Some(all)
    }
}

type Labels = Vec<(&'static str, &'static str)>;

/// Describes the metrics to the process's recorder, and begins all series whose labels are known. `fixed`: labels of
/// which this process has one value only.
pub fn register(metrics: &[Metric], fixed: &[(&'static str, &'static str)]) {
    for metric in metrics {
        match metric.kind {
            Kind::Counter => metrics::describe_counter!(metric.name, metric.help),
            Kind::Gauge => metrics::describe_gauge!(metric.name, metric.help),
            Kind::Histogram => metrics::describe_histogram!(metric.name, metric.help),
        }
        for labels in metric.series(fixed).unwrap_or_default() {
            match metric.kind {
                Kind::Counter => metrics::counter!(metric.name, &labels).increment(0),
                Kind::Gauge => metrics::gauge!(metric.name, &labels).increment(0.0),
                Kind::Histogram => drop(metrics::histogram!(metric.name, &labels)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    const SOME: &[Metric] = &[
        Metric::counter(
            "drops_total",
            &[("reason", Values::Listed(&["a", "b"])), ("way", Values::Listed(&["in", "out"]))],
            "lost",
        ),
        Metric::histogram("took_seconds", &[], "how long"),
        Metric::counter("calls_total", &[("route", Values::Named("the route's template"))], "calls"),
    ];

    #[test]
    fn what_can_be_known_is_in_the_first_scrape() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        metrics::with_local_recorder(&recorder, || register(SOME, &[("way", "in")]));
        let page = handle.render();
        for line in [
            "# HELP drops_total lost",
            r#"drops_total{reason="a",way="in"} 0"#,
            r#"drops_total{reason="b",way="in"} 0"#,
            "took_seconds_count 0",
        ] {
            assert!(page.contains(line), "{line} is not in\n{page}");
        }
        assert!(!page.contains("out"), "this process has no such way: {page}");
        assert!(!page.contains("calls_total{"), "nobody knows which there will be: {page}");
    }

    #[test]
    fn a_row_says_everything() {
        assert_eq!(
            SOME[0].row(),
            "| `drops_total` | counter | `reason`: `a` `b`; `way`: `in` `out` | lost |"
        );
        assert_eq!(SOME[2].row(), "| `calls_total` | counter | `route`: the route's template | calls |");
    }
}
